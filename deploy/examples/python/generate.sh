#!/usr/bin/env bash
# Generates the stubs that example.py imports. Usage: generate.sh FOLDER_OF_PROTO [FOLDER_OF_STUBS]
set -euo pipefail
python3 -m grpc_tools.protoc -I "$1" --python_out="${2:-.}" --grpc_python_out="${2:-.}" ringside/v1/cache.proto
