# Runs in a guest that was booted whole, with every killer of others installed and active:
# install, look, use, uninstall; prints "name: what was found" for each thing that is asked.
F="python3 -m forestall.cli.main"
SNAP=/tmp/snap
KILLERS="earlyoom.service nohang.service nohang-desktop.service oomd.service systemd-oomd.service"
mkdir -p $SNAP

say() { echo "$1: $(shift; "$@" 2>&1 | tr '\n' ' ')"; }
files() {
	find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /var/tmp -o -path /run/put \
		-o -path /var/lib/job -o -path /var/log/journal -o -path /var/cache/ldconfig \) -prune \
		-o -printf '%y %m %u %p\n' | sort
	find /run /dev/shm -xdev -name '*forestall*' -printf '%y %m %u %p\n' | sort
}
show() { systemctl show forestall.service -p "$1" --value; }
until_true() { # waits for what systemd or the journal is still to say
	n=0
	while [ $n -lt 200 ]; do "$@" > /dev/null 2>&1 && return 0; n=$((n + 1)); sleep 0.3; done
	return 1
}
told() { journalctl -q --no-pager -o cat "MESSAGE_ID=$1" | grep -q .; }
killers() { systemctl is-enabled $KILLERS 2> /dev/null; }

files > $SNAP/before
killers > $SNAP/killers

$F install --yes > /dev/null 2>&1; echo "install beside others: $?"
say "after the refusal" ls /usr/local/lib/forestall
$F install --yes --replace > /dev/null 2>&1; echo "install: $?"
say "active" systemctl is-active forestall.service forestall-herald.service
say "others" systemctl is-active $KILLERS
for name in Type NotifyAccess WatchdogUSec StatusText; do say "$name" show $name; done
say "exposure" sh -c 'systemd-analyze security --no-pager forestall.service | tail -1'
say "faults of the unit" systemd-analyze verify /etc/systemd/system/forestall.service
P=$(show MainPID)
say "seccomp" sh -c "grep -E '^(Seccomp|NoNewPrivs):' /proc/$P/status | tr -s '\t' ' '"
say "oom_score_adj" cat /proc/$P/oom_score_adj
unset PYTHONPATH
say "lacks" sh -c '/usr/local/bin/forestall status | grep degraded'
/usr/local/bin/forestall run > /dev/null 2>&1; echo "second guard: $?"

# Settings.
mkdir -p /etc/forestall/forestall.toml.d
echo '[timing]' > /etc/forestall/forestall.toml.d/probe.toml
echo 'grace = "7s"' >> /etc/forestall/forestall.toml.d/probe.toml
systemctl reload forestall.service; echo "reload good: $?"
echo 'grase = "7s"' >> /etc/forestall/forestall.toml.d/probe.toml
systemctl reload forestall.service 2> /dev/null; echo "reload bad: $?"
say "after reloads" systemctl is-active forestall.service
rm /etc/forestall/forestall.toml.d/probe.toml

# A hog and somebody harmless, both of another user.
systemd-run -q --unit=probe-sleeper --uid=nobody sleep 500
systemd-run -q --unit=probe-hog --uid=nobody python3 /run/put/install_hog.py
until_true told eedf47ded3a44b23812470b162b6c687; echo "outcome told: $?"
for id in c624c461c30b4483a148e6e7279a1a65 0d86aff9ec7a4c4abc06455891ec9b71 \
	4189ff88bf9c495bb658a4b9e8f66fa3 1c8296a3b9e94f198bf20565c313832a; do
	told $id; echo "told $id: $?"
done
say "kernel kills" sh -c "grep '^oom_kill ' /proc/vmstat"
say "sleeper" systemctl is-active probe-sleeper
say "hog" systemctl is-active probe-hog
S=/run/forestall/control.sock
if command -v varlinkctl > /dev/null; then
	varlinkctl info $S > $SNAP/info 2>&1; echo "varlink info: $?"
	varlinkctl introspect $S org.forestall.Guard > $SNAP/idl 2>&1; echo "varlink introspect: $?"
	varlinkctl call $S org.forestall.Guard.GetStatus '{}' > $SNAP/status 2>&1; echo "varlink call: $?"
	say "varlink level" sh -c "grep -q '\"level\"' $SNAP/status && echo yes"
	setpriv --reuid=65534 --regid=65534 --clear-groups varlinkctl call $S org.forestall.Guard.Reload \
		'{"rules":{}}' > $SNAP/denied 2>&1; echo "varlink denied: $?"
fi
systemctl stop probe-sleeper probe-hog 2> /dev/null; systemctl reset-failed

# A guard whose loop stands still is found by the watchdog, which the loop feeds.
mkdir -p /etc/systemd/system/forestall.service.d
printf '[Service]\nWatchdogSec=4\n' > /etc/systemd/system/forestall.service.d/probe.conf
systemctl daemon-reload; systemctl restart forestall.service
sleep 10
say "restarts of a guard that turns" show NRestarts
kill -STOP "$(show MainPID)"
until_true sh -c '[ "$(systemctl show forestall.service -p NRestarts --value)" -gt 0 ]'
echo "restarted a guard that stands still: $?"
rm -r /etc/systemd/system/forestall.service.d; systemctl daemon-reload
systemctl restart forestall.service; systemctl stop forestall.service
say "stopped" show Result

# Away.
/usr/local/bin/forestall uninstall --yes > /dev/null 2>&1; echo "uninstall: $?"
say "others afterwards" sh -c "systemctl is-enabled $KILLERS 2> /dev/null | diff - $SNAP/killers && echo same"
PYTHONPATH=/run/src/src:/run/src/site $F uninstall --yes --purge > /dev/null 2>&1; echo "purge: $?"
systemctl stop $KILLERS 2> /dev/null
files > $SNAP/after
say "left" sh -c "diff $SNAP/before $SNAP/after | grep forestall"
say "units left" systemctl list-unit-files --no-legend 'forestall*'
