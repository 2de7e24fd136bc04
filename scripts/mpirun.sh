#!/usr/bin/env bash
# Starts ranks on this machine, as many as asked for, whoever asks and however few its cores are.
# Usage: mpirun.sh MPIEXEC RANKS PROGRAM [ARGUMENT...]
set -euo pipefail
mpiexec=$1 ranks=$2
shift 2
export OMP_WAIT_POLICY=passive
version=$("$mpiexec" --version 2>&1)
if [[ $version == *"Open MPI"* || $version == *OpenRTE* ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    exec "$mpiexec" --oversubscribe --bind-to none -n "$ranks" "$@"
fi
exec "$mpiexec" -n "$ranks" "$@"
