"""Names for actors: ordinary ones, several for each part.

Rule: nothing in a name tells guilty from innocent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program as ``ps`` shows it."""

    exe: str
    arguments: str

    @property
    def name(self) -> str:
        """The file name, which is also the process's name."""
        return self.exe.rsplit("/", 1)[1]


def _cast(*commands: str) -> tuple[Program, ...]:
    return tuple(
        Program(exe="/usr/local/bin/" + command.split()[0], arguments=command)
        for command in commands
    )


def _real(exe: str, arguments: str) -> tuple[Program, ...]:
    return (Program(exe=exe, arguments=arguments),)


BATCH = _cast(
    "python3.11 train.py --epochs 40",
    "node build.js --production",
    "java -Xmx4g -jar report.jar",
    "ffmpeg -i in.mkv -c:v libx264 out.mp4",
    "R --no-save -f fit.R",
    "convert scan.tif -density 300 scan.pdf",
    "octave-cli model.m",
    "ruby import.rb --all",
    "qgis_process run raster:merge",
    "blender -b scene.blend -a",
)
"""Things people start and forget; culprits come from here, and so do innocent workers."""

CASTS: dict[str, tuple[Program, ...]] = {
    "batch": BATCH,
    "service": _cast(
        "collectd -f", "gunicorn app:main", "vector --config /etc/vector.toml", "minio server /srv"
    ),
    "sshd": _cast("sshd -D"),
    "mail": _cast("thunderbird", "evolution --component=mail", "geary --gapplication-service"),
    "editor": _cast("code --unity-launch", "gedit notes.txt", "emacs", "kate todo.md"),
    "browser": _cast("firefox-esr", "chromium --incognito", "epiphany"),
    "database": _cast(
        "postgres -D /var/lib/postgresql/15/main", "mysqld --user=mysql", "mongod --config m.conf"
    ),
    "helper": _cast("pipewire", "wireplumber", "gvfsd-metadata", "gvfsd-trash"),
    "cron": _cast("cron-report --daily", "backup-agent --run", "logship --once"),
    "tmux": _real("/usr/bin/tmux", "tmux new-session -d -s main bash --norc"),
    "keys": _real("/usr/bin/tmux", "tmux send-keys -t main build Enter"),
    "copy": _real("/usr/bin/cp", "cp /srv/data/archive /home/alex/archive"),
}
COMPILER = Program(exe="/usr/local/bin/cc1plus", arguments="cc1plus")
TAB = Program(
    exe="/usr/local/bin/content-process", arguments="content-process,-contentproc,-childID"
)
WORKER = Program(exe="/usr/local/bin/worker", arguments="worker,--queue,default")
CHILDREN = (COMPILER, TAB, WORKER)
"""Programs that actors start by themselves."""
