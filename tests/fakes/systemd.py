"""A service manager that knows a few units and reads their drop-ins; other programs by name."""

import re

from forestall.admin.commands import Done


class FakeSystemd:
    """Answers as systemctl and systemd-analyze do; ``told`` is every command, in order."""

    def __init__(self, root, units=(), version=252):
        self.root = root
        self.version = version
        self.told = []
        self.units = {unit: {} for unit in units}
        self.enabled = set()
        self.loaded = {}
        self.programs = {}
        self.analyze = Done(status=0)
        self.failing = {}

    def unit(self, name, **state):
        self.units[name] = {"ActiveState": "active", "MainPID": "50", **state}
        return self

    def __call__(self, *words, timeout_s=0, environment=None):
        self.told.append(words)
        if words in self.failing:
            return self.failing[words]
        if words[0] == "systemctl":
            return getattr(self, "do_" + words[1].strip("-").replace("-", "_"))(*words[2:])
        if words[0] == "systemd-analyze":
            return self.analyze
        answer = self.programs.get(words[0])
        return answer(*words[1:]) if answer else Done(status=127, err=f"{words[0]}: not found")

    def do_version(self):
        return Done(status=0, out=f"systemd {self.version} ({self.version}.1)\n+PAM\n")

    def do_daemon_reload(self):
        self.loaded = {name: self._dropped(name) for name in self.units}
        return Done(status=0)

    def do_show(self, *words):
        names, unit = words[words.index("-p") + 1].split(","), words[-1]
        if unit not in self.units:
            known = {"LoadState": "not-found", "Id": unit, "ActiveState": "inactive"}
        else:
            known = {
                "LoadState": "loaded",
                "Id": unit,
                "ActiveState": "inactive",
                "MainPID": "0",
                "Type": "simple",
                "OOMScoreAdjust": "0",
                "OOMPolicy": "stop",
                "MemoryMax": "infinity",
                "FragmentPath": f"/lib/systemd/system/{unit}",
                "ControlGroup": f"/system.slice/{unit}",
                "UnitFileState": "enabled" if unit in self.enabled else "disabled",
                **self.units[unit],
                **self.loaded.get(unit, {}),
            }
        lines = [f"{name}={known[name]}" for name in names if name in known]
        return Done(status=0, out="\n".join(lines) + "\n")

    def do_cat(self, *words):
        return Done(status=0 if words[-1] in self.units else 1)

    def do_list_units(self, *words):
        pattern = re.compile(re.escape(words[-1]).replace(r"\*", ".*") + r"\Z")
        found = [name for name in self.units if pattern.match(name)]
        return Done(status=0, out="".join(f"{name} loaded active running x\n" for name in found))

    def do_is_active(self, unit):
        state = self.units.get(unit, {}).get("ActiveState", "inactive")
        return Done(status=0 if state == "active" else 3, out=state + "\n")

    def do_enable(self, *words):
        for unit in words:
            if not unit.startswith("-"):
                self.enabled.add(unit)
                if "--now" in words:
                    self.units.setdefault(unit, {})["ActiveState"] = "active"
        return Done(status=0)

    def do_disable(self, *words):
        for unit in words:
            if not unit.startswith("-"):
                self.enabled.discard(unit)
                if "--now" in words:
                    self.units.setdefault(unit, {})["ActiveState"] = "inactive"
        return Done(status=0)

    def do_restart(self, *words):
        for unit in words:
            self.units.setdefault(unit, {})["ActiveState"] = "active"
        return Done(status=0)

    do_start = do_restart

    def do_stop(self, *words):
        for unit in words:
            self.units.setdefault(unit, {})["ActiveState"] = "inactive"
        return Done(status=0)

    def do_status(self, *words):
        return Done(status=0, out="active (running)\n")

    def _dropped(self, unit):
        found = {}
        for path in sorted((self.root / "etc/systemd/system" / f"{unit}.d").glob("*.conf")):
            for line in path.read_text().splitlines():
                name, sign, held = line.partition("=")
                if sign and not line.startswith("#"):
                    size = re.fullmatch(r"(\d+)([KMG])", held)
                    factor = {"K": 2**10, "M": 2**20, "G": 2**30}
                    found[name] = (
                        str(int(size[1]) * factor[size[2]])
                        if size and name.startswith("Memory")
                        else held
                    )
        return found
