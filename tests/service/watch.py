"""What a kill or a power cut would leave of a folder, at every step of a run."""

import os
import threading
from pathlib import Path

STEPS = "open write fsync replace rename unlink rmdir mkdir ftruncate".split()


class Watch:
    """Records, before and after each file-system call, three trees of a folder.

    ``killed``: what is there now; the kernel writes it however the process dies. Half
    of each write is one more such moment. ``cut``: names and contents that were forced
    to disk, nothing else. ``mixed``: the names that are there now with the contents
    that were forced to disk, as a journal of names alone would leave it. A tree is a
    dict from path to bytes, None for a folder. Only the main thread's calls are steps;
    Orbax's threads write meanwhile.

    What the folder holds at first counts as forced to disk, but for the names in the
    folder ``unforced``. ``told`` is set by the caller: of how many requests it was told
    the outcome.
    """

    def __init__(self, folder, monkeypatch, unforced=None):
        self.folder, self.told = Path(folder), 0
        self.trees = {}
        self._files, self._folders, self._held = {}, {}, []
        self._real = {name: getattr(os, name) for name in STEPS}
        for name in STEPS:
            monkeypatch.setattr(os, name, self._step(name))
        self._busy = True
        before = [self.folder.parent, self.folder, *self.folder.rglob("*")]
        for path in [path for path in before if path.exists()]:
            descriptor = self._real["open"](path, os.O_RDONLY)
            self._forced(descriptor)
            os.close(descriptor)
            if path == unforced:
                self._folders[path.stat().st_ino] = {}
        self._busy = False

    def _step(self, name):
        real = self._real[name]

        def call(*args, **options):
            if self._busy or threading.current_thread() is not threading.main_thread():
                return real(*args, **options)
            self._record()
            if name == "write" and len(args[1]) > 1:
                half = real(args[0], args[1][: len(args[1]) // 2])
                self._record()
                return half + real(args[0], args[1][half:])
            result = real(*args, **options)
            if name == "fsync":
                self._forced(args[0])
                self._record()
            return result

        return call

    def _forced(self, descriptor):
        self._held.append(os.dup(descriptor))  # so that its number is not used again
        here, status = f"/proc/self/fd/{descriptor}", os.fstat(descriptor)
        if os.path.isdir(here):
            with os.scandir(here) as entries:
                names = {e.name: (e.inode(), e.is_dir()) for e in entries}
            self._folders[status.st_ino] = names
        else:
            self._files[status.st_ino] = Path(here).read_bytes()

    def _record(self):
        self._busy = True
        try:
            killed, mixed = {}, {}
            self._walk(self.folder, "", killed, mixed)
            cut = {}
            names = self._folders.get(os.stat(self.folder.parent).st_ino, {})
            if self.folder.name in names:
                self._durable(names[self.folder.name][0], "", cut)
        finally:
            self._busy = False
        for kind, tree in (("killed", killed), ("mixed", mixed), ("cut", cut)):
            name = (self.told, *sorted(tree.items(), key=lambda item: item[0]))
            self.trees.setdefault(name, (set(), self.told, tree))[0].add(kind)

    def _walk(self, folder, prefix, killed, mixed):
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                killed[name] = mixed[name] = None
                self._walk(entry.path, f"{name}/", killed, mixed)
            else:
                try:
                    killed[name] = Path(entry.path).read_bytes()
                except FileNotFoundError:
                    continue
                mixed[name] = self._files.get(entry.inode(), b"")

    def _durable(self, inode, prefix, tree):
        for name, (child, is_folder) in self._folders.get(inode, {}).items():
            tree[prefix + name] = None if is_folder else self._files.get(child, b"")
            if is_folder:
                self._durable(child, f"{prefix}{name}/", tree)

    def free(self):
        for descriptor in self._held:
            os.close(descriptor)


def lay_out(tree, folder):
    """Write a tree to disk."""
    folder.mkdir(parents=True)
    for name, content in sorted(tree.items()):
        if content is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
