#!/bin/sh
# Installs Slurm for the tests, where root and apt are; does nothing elsewhere, or where it is there.
# No daemon is started: while apt works, policy-rc.d forbids it.
PATH=$PATH:/usr/sbin:/sbin
if command -v slurmctld >/dev/null && command -v munged >/dev/null &&
    command -v slurmdbd >/dev/null && command -v mariadbd >/dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo 'The tests on a real Slurm are left out: they need root and apt.'
    exit 0
fi
echo 'Installing Slurm for the tests; it takes half a minute.'
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
packages='slurm-wlm munge slurmdbd slurm-wlm-mysql-plugin mariadb-server-core'
install() {
    apt-get -o Acquire::Retries=3 update &&
        apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install -y \
            --no-install-recommends $packages
}
for pause in 5 20 0; do # a mirror may fail once, or another apt may be at work
    if install >"$log" 2>&1; then
        installed=1
        break
    fi
    sleep $pause
done
if [ -z "${installed:-}" ]; then
    tail -n 20 "$log"
    echo 'Slurm could not be installed; its tests will say so.'
fi
rm -f "$log"
