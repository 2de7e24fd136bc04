#!/usr/bin/env bash
# Fails when a tracked file names a place that exists on one machine only: a path under somebody's
# home, or a package registry's host. The brackets keep the patterns from finding themselves.
set -euo pipefail
cd "$(dirname "$0")/.."
paths='(^|[^A-Za-z0-9_.~-])/(hom[e]|roo[t]|User[s]|mn[t]|wor[k]|works[p]ace)(/|$|[^A-Za-z0-9_.-])'
hosts='(deb\.debia[n]|snapshot\.debia[n]|security\.debia[n]|archive\.ubunt[u])\.|'
hosts+='(pyp[i]|pythonhoste[d])\.org|registry\.npmj[s]|crates\.i[o]|(dock[e]r|ghc[r]|qua[y])\.io|'
hosts+='pkg\.de[v]|artifactor[y]|proxy\.golan[g]'
status=0
git grep -nIE -e "$paths" -e "$hosts" || status=$?
case $status in
    0) echo "error: the lines above name a machine's path or a registry's host" >&2; exit 1 ;;
    1) echo "words: no machine's path, no registry's host" ;;
    *) exit "$status" ;;
esac
