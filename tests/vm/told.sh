# Runs inside a guest, as root: services, a scope and a pool of workers leak beside a bystander.
put=/run/put
python3 -m forestall.cli.main install --yes > /tmp/install.log 2>&1 || cat /tmp/install.log
systemctl start forestall.service
grow="python3 -I $put/growers.py"
until_true() { n=0; until eval "$1"; do n=$((n + 1)); [ $n -lt 240 ] || { echo "never: $1"; return; }; sleep 0.5; done; }
show() { systemctl show "$1" -p Result -p ActiveState | tr '\n' ' '; echo; }
ended() { journalctl -q --no-pager -o cat FORESTALL_EVENT=decision | grep -c .; }
until_true 'systemctl is-active -q forestall.service'
systemd-run -q --unit=bystander $grow grow 100 1000
sleep 3
systemctl show -p MainPID --value bystander.service > /tmp/bystander

echo "# service"
systemd-run -q --unit=single $grow grow 4000 150
until_true 'systemctl is-failed -q single.service'
show single.service
journalctl -q --no-pager -o cat _PID=1 UNIT=single.service
systemctl status --no-pager single.service | sed -n 's/.*forestall\[[0-9]*\]: /status shows: /p'

echo "# service that restarts"
systemd-run -q --unit=looper -p Restart=always -p RestartSec=300ms $grow grow 4000 150
until_true '[ $(journalctl -q -o cat FORESTALL_EVENT=restart-loop | grep -c looper) -ge 2 ]'
sleep 2
systemctl stop looper.service
journalctl -q --no-pager -o cat _PID=1 UNIT=looper.service | grep -e result -e oomd
journalctl -q --no-pager -o cat FORESTALL_EVENT=restart-loop
forestall status | grep -A1 'comes back'

echo "# worker"
before=$(ended)
systemd-run -q --unit=pool sh -c "$grow grow 4000 150; sleep 1000"
until_true '[ $(ended) -gt $before ]'
sleep 4
show pool.service
journalctl -q --no-pager -o cat -u pool.service

echo "# scope"
systemd-run -q --scope --unit=app $grow grow 4000 150 > /dev/null 2>&1 &
sleep 2
until_true '! systemctl is-active -q app.scope'
show app.scope
journalctl -q --no-pager -o cat _PID=1 UNIT=app.scope

echo "# another killer"
systemctl stop pool.service
total=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
for round in 1 2 3; do
  before=$(ended)
  systemd-run -q --unit=follower$round $grow follow $((total / 7)) 200
  systemd-run -q --unit=leaker$round $grow grow 4000 150
  sleep 2
  $grow kill $(systemctl show -p MainPID --value leaker$round.service) $((total / 18))
  sleep 5
  echo "round $round: ended by the guard $(($(ended) - before)), follower $(systemctl is-active follower$round.service)"
  systemctl stop follower$round.service
done
journalctl -q --no-pager -o cat FORESTALL_EVENT=other-kill

echo "# in the end"
echo "bystander $(systemctl show -p MainPID --value bystander.service) was $(cat /tmp/bystander)"
echo "kernel kills $(awk '/^oom_kill/ {print $2}' /proc/vmstat)"
journalctl -q --no-pager -o short-monotonic -u forestall.service | tail -60 | sed 's/^/journal: /'
