#!/usr/bin/env bash
# Prints the folders, with colons between, in which this machine's Python packages have cuBLASLt
# (PyTorch's wheels bring it), or nothing. For machines without a CUDA toolkit:
#   export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$(scripts/cublaslt_path.sh)
python3 -c '
import glob, os, sys
found = [os.path.dirname(library) for folder in sys.path
         for library in glob.glob(folder + "/nvidia/*/lib/libcublasLt.so.*")]
print(":".join(dict.fromkeys(found)))' 2> /dev/null || true
