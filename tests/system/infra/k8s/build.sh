#!/usr/bin/env bash
# build.sh FOLDER: a real Kubernetes 1.20.2 control plane from Debian's source with Debian's Go. About 10 minutes on 2 cores, 3 GB of disk.
# Leaves in FOLDER/bin: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl (1.32). Nothing is installed.
# What exists already is not made again. GOCACHE may point to a kept Go cache.
# Why 1.20: bookworm has the last Debian source package that still carries the whole of Kubernetes; later ones hold kubectl only.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); . "$here/../debian.sh"
[ $# -eq 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1/bin"; to=$(cd "$1" && pwd); source=$to/gopath/src/k8s.io/kubernetes
started=$(date +%s); say() { echo "$* ($(($(date +%s) - started)) s)"; }

if [ ! -d "$to/go" ]; then debian_unpack bookworm "$to/go" golang-1.19-go golang-1.19-src; say Go unpacked; fi
if [ ! -x "$to/bin/etcd" ]; then
  debian_unpack bookworm "$to/etcd" etcd-server; cp "$to/etcd/usr/bin/etcd" "$to/bin/"; rm -r "$to/etcd"; say etcd unpacked
fi
if [ ! -x "$to/bin/kubectl" ]; then
  debian_unpack trixie "$to/kubectl" kubectl; cp "$to/kubectl/usr/bin/kubectl" "$to/bin/"; rm -r "$to/kubectl"; say kubectl unpacked
fi
if [ ! -d "$source" ]; then
  debian_source bookworm "$to/source" kubernetes
  mkdir -p "$source.part"; tar -xzf "$to"/source/kubernetes_*.orig.tar.gz -C "$source.part" --strip-components=1; mv "$source.part" "$source"
  say source unpacked
fi

# GOPATH mode: in module mode the vendored tree is refused ("updates to go.mod needed").
export GOROOT=$to/go/usr/lib/go-1.19 GOPATH=$to/gopath GOCACHE=${GOCACHE:-$to/gocache} GO111MODULE=off GOFLAGS="" CGO_ENABLED=0
PATH=$GOROOT/bin:$PATH
cd "$source"
generated=pkg/generated/openapi/zz_generated.openapi.go   # not in the source package
if [ ! -e "$generated" ]; then
  nice go build -o "$to/bin/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  packages=$(grep -rl '+k8s:openapi-gen=' --include='*.go' pkg vendor/k8s.io/ staging/src/k8s.io | xargs -n1 dirname \
    | grep -vE '_examples|sample-apiserver|sample-controller|/testdata|code-generator' | sed -e 's#^staging/src/#vendor/#' -e 's#^#k8s.io/kubernetes/#' | sort -u | paste -sd,)
  nice "$to/bin/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -o "$GOPATH/src" -r "$to/openapi-violations.txt"
  say openapi generated
fi
version=k8s.io/kubernetes/vendor/k8s.io/component-base/version   # the vendored path: any other leaves the version at v0.0.0
flags="-s -w -X $version.gitVersion=v1.20.2 -X $version.gitMajor=1 -X $version.gitMinor=20 -X $version.gitTreeState=clean"
flags="$flags -X k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version.gitVersion=v1.20.2"
for program in kube-apiserver kube-controller-manager kube-scheduler; do
  [ ! -x "$to/bin/$program" ] || continue
  nice go build -trimpath -ldflags "$flags" -o "$to/bin/$program" "k8s.io/kubernetes/cmd/$program"; say "$program built"
done
