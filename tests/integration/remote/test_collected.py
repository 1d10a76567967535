"""Commands that run while another collects garbage without mercy."""

import subprocess
import threading
from pathlib import Path

from ocistow.store.collection.collector import Collector
from ocistow.store.store import Store
from ocistow.testing.images import image_layout
from ocistow.testing.invariants import images, violations
from ocistow.testing.mounts import command_line, environment

ROUNDS = 4


def test_images_are_added_and_removed_while_garbage_is_collected(tmp_path: Path) -> None:
    """Their shared layers are garbage whenever nobody has just named them."""
    base = image_layout(tmp_path / "base", seed=1, layers=3)
    apps = [
        image_layout(tmp_path / f"app{number}", seed=10 + number, layers=1, base=base)
        for number in range(2)
    ]
    for app in apps:
        for layer in base.layers:
            app.blob(layer).write_bytes(base.blob(layer).read_bytes())
    path = tmp_path / "store"
    failures: list[str] = []

    def work(number: int) -> None:
        name = f"example.com/app:{number}"
        for round_ in range(ROUNDS):
            for command in (["add", f"oci:{apps[number].path}", name], ["rm", name]):
                if round_ == ROUNDS - 1 and command[0] == "rm":
                    break
                done = subprocess.run(
                    command_line(path, *command), env=environment(), capture_output=True, text=True
                )
                if done.returncode:
                    failures.append(done.stderr)

    with Store.create(path) as store:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        removed = 0
        while any(thread.is_alive() for thread in threads):
            removed += Collector(store, grace=0).collect().blobs
    assert failures == []
    assert removed > 0
    assert violations(path) == []
    assert len(images(path)) == 2
