#!/usr/bin/env bash
# control-plane.sh up RUN_FOLDER BIN_FOLDER [PORT]   etcd + kube-apiserver + kube-controller-manager + kube-scheduler as processes; no nodes
# control-plane.sh down RUN_FOLDER                   stops what `up` started
# BIN_FOLDER is build.sh's FOLDER/bin. Writes RUN_FOLDER/kubeconfig (admin, a random token) and logs; every port is a free one on 127.0.0.1,
# or the API server's is PORT. Ready in under 10 s. Nodes: tests/clusters/real_kubernetes.py. The store is not durable (--unsafe-no-fsync): tests only.
set -euo pipefail
usage() { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
mkdir -p "$2"; run=$(cd "$2" && pwd)
down() {
  local name pid
  for name in kube-scheduler kube-controller-manager kube-apiserver etcd; do   # only a pid that is still that program
    [ -e "$run/$name.pid" ] || continue
    pid=$(cat "$run/$name.pid"); rm "$run/$name.pid"
    [ "$(tr '\0' '\n' 2>/dev/null < "/proc/$pid/cmdline" | head -n 1 || true)" = "$(cat "$run/bin")/$name" ] || continue
    kill "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
}
case $1 in up) [ $# -ge 3 ] || usage ;; down) down; exit 0 ;; *) usage ;; esac

bin=$(cd "$3" && pwd); down
rm -rf "$run/etcd-data" "$run/pki"; mkdir -p "$run/pki"; echo "$bin" > "$run/bin"
start() { local name=$1; shift; setsid nohup nice "$bin/$name" "$@" >"$run/$name.log" 2>&1 </dev/null & echo $! > "$run/$name.pid"; }
gave_up() { echo "$1 did not come up; the end of $run/$2.log:" >&2; tail -n 5 "$run/$2.log" >&2; down; exit 1; }
read -r api etcd peer kcm scheduler < <(python3 -c 'import socket
held = [socket.socket() for _ in range(5)]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))')
api=${4:-$api}
began=$(date +%s%N); elapsed() { echo "$(($(date +%s%N) / 1000000 - began / 1000000)) ms"; }
openssl genrsa -out "$run/pki/sa.key" 2048 2>/dev/null
token=$(openssl rand -hex 16); (umask 077; echo "$token,admin,admin,system:masters" > "$run/pki/tokens.csv")

start etcd --data-dir "$run/etcd-data" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
  --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer"
# the advertised address is a documentation address: the API server refuses to advertise a loopback one
start kube-apiserver --etcd-servers="http://127.0.0.1:$etcd" --secure-port="$api" --bind-address=127.0.0.1 --advertise-address="${ADVERTISE:-192.0.2.2}" \
  --cert-dir="$run/pki" --token-auth-file="$run/pki/tokens.csv" --authorization-mode=Node,RBAC --service-account-key-file="$run/pki/sa.key" \
  --service-account-signing-key-file="$run/pki/sa.key" --service-account-issuer=https://kubernetes.default.svc --api-audiences=api \
  --service-cluster-ip-range=10.96.0.0/16 --allow-privileged=true
(umask 077; cat > "$run/kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$api", certificate-authority: "$run/pki/apiserver.crt"}}]
users: [{name: admin, user: {token: "$token"}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
YAML
)
kubectl() { "$bin/kubectl" --kubeconfig "$run/kubeconfig" --request-timeout=5s "$@"; }
wait_for() { local n; for n in $(seq 200); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.3; done; return 1; }
wait_for kubectl get --raw /readyz || gave_up "the API server" kube-apiserver
echo "API server ready in $(elapsed)"
start kube-controller-manager --kubeconfig="$run/kubeconfig" --service-account-private-key-file="$run/pki/sa.key" --use-service-account-credentials=false \
  --leader-elect=false --bind-address=127.0.0.1 --secure-port="$kcm" --port=0 --cert-dir="$run/pki/controller-manager"
start kube-scheduler --kubeconfig="$run/kubeconfig" --leader-elect=false --bind-address=127.0.0.1 --secure-port="$scheduler" --port=0 --cert-dir="$run/pki/scheduler"
wait_for kubectl get serviceaccount default || gave_up "the controller manager" kube-controller-manager
echo "namespace default usable in $(elapsed)"
echo "export KUBECONFIG=$run/kubeconfig"
