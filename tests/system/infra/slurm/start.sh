# The container's command: fake GPU devices, munge, the controller and both nodes.
set -e
for i in 0 1 2 3; do [ -e /dev/fakegpu$i ] || mknod /dev/fakegpu$i c 1 3; done   # /dev/null under four names
mkdir -p /run/munge /var/log/munge /var/lib/munge /etc/munge /var/spool/slurmctld
[ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
chown -R munge:munge /etc/munge /var/log/munge /var/lib/munge /run/munge; chmod 400 /etc/munge/munge.key; chmod 755 /run/munge
setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged --force
slurmctld
for n in gpu1 gpu2; do slurmd -N $n; done
exec tail -F /var/log/slurmctld.log
