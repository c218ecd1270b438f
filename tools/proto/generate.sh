#!/bin/sh
# Generates plugins/sdk/wire from plugins/sdk/adapter.proto.
# With --check it changes nothing and fails if the committed files are stale.
# Needs protoc on the PATH (Debian: protobuf-compiler); the rest comes from go.mod here.
set -eu
cd "$(dirname "$0")"
go_plugin=$(go tool -n protoc-gen-go)
grpc_plugin=$(go tool -n protoc-gen-go-grpc)
sdk=../../plugins/sdk
out=$sdk/wire
if [ "${1:-}" = --check ]; then
	out=$(mktemp -d)
	trap 'rm -r "$out"' EXIT
fi
protoc --proto_path="$sdk" \
	--plugin=protoc-gen-go="$go_plugin" --go_out="$out" \
	--go_opt=module=github.com/headgate-io/headgate/plugins/sdk/wire \
	--plugin=protoc-gen-go-grpc="$grpc_plugin" --go-grpc_out="$out" \
	--go-grpc_opt=module=github.com/headgate-io/headgate/plugins/sdk/wire \
	adapter.proto
# The version of protoc differs from machine to machine and changes nothing else.
sed -i '/^\/\/ \(- \)\?[[:space:]]*protoc  *v/d' "$out"/adapter*.pb.go
if [ "${1:-}" = --check ]; then
	for f in adapter.pb.go adapter_grpc.pb.go; do
		diff -u "$sdk/wire/$f" "$out/$f" || { echo "$f is stale: run make generate" >&2; exit 1; }
	done
fi
