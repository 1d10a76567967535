import errno

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ocistow.fusefs.tree import ROOT, Tree

INODES = st.integers(2, 9)
NAMES = st.sampled_from([b"a", b"b", b"c"])


class Trees(RuleBasedStateMachine):
    """A tree knows what a dict of names and a dict of counts know."""

    def __init__(self) -> None:
        super().__init__()
        self.tree: Tree[str] = Tree("root")
        self.counts: dict[int, int] = {ROOT: 1}
        self.names: dict[tuple[int, bytes], int] = {}
        self.order: dict[int, list[bytes]] = {}

    def unname(self, name: bytes) -> None:
        inode = self.names.pop((ROOT, name), None)
        if inode is not None:
            self.order[inode].remove(name)

    @rule(inode=INODES, name=NAMES)
    def look_up(self, inode: int, name: bytes) -> None:
        node = self.tree.enter(inode, f"content of {inode}")
        self.tree.name(node, self.tree[ROOT], name)
        self.counts[inode] = self.counts.get(inode, 0) + 1
        self.unname(name)
        self.names[ROOT, name] = inode
        self.order.setdefault(inode, []).append(name)

    @rule(inode=INODES, lookups=st.integers(1, 3))
    def forget(self, inode: int, lookups: int) -> None:
        self.tree.forget(inode, lookups)
        if inode in self.counts:
            self.counts[inode] -= lookups
            if self.counts[inode] <= 0:
                del self.counts[inode]
                for name in self.order.pop(inode, []):
                    del self.names[ROOT, name]

    @rule(name=NAMES)
    def unlink(self, name: bytes) -> None:
        self.tree.unname(self.tree[ROOT], name)
        self.unname(name)

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: bytes, new: bytes) -> None:
        self.tree.move(self.tree[ROOT], name, self.tree[ROOT], new)
        inode = self.names.get((ROOT, name))
        self.unname(name)
        self.unname(new)
        if inode is not None:
            self.names[ROOT, new] = inode
            self.order[inode].append(new)

    @rule()
    def forget_the_root(self) -> None:
        self.tree.forget(ROOT, 5)

    @invariant()
    def knows_what_the_model_knows(self) -> None:
        assert len(self.tree) == len(self.counts)
        for inode, count in self.counts.items():
            assert self.tree[inode].lookups == count or inode == ROOT
        for name in (b"a", b"b", b"c"):
            found = self.tree.find(self.tree[ROOT], name)
            assert (found.inode if found else None) == self.names.get((ROOT, name))
        for inode, names in self.order.items():
            node = self.tree.get(inode)
            if node is not None and names:
                assert node.path == names[-1]
            elif node is not None:
                with pytest.raises(OSError, match="Stale"):
                    assert node.path


TestTrees = Trees.TestCase


def test_paths_lead_through_directories_that_move() -> None:
    tree: Tree[str] = Tree("root")
    root = tree[ROOT]
    one, two, file = (tree.enter(number, "") for number in (2, 3, 4))
    tree.name(one, root, b"one")
    tree.name(two, one, b"two")
    tree.name(file, two, b"file")
    assert (root.path, root.child(b"x"), file.path) == (b".", b"x", b"one/two/file")
    tree.move(root, b"one", root, b"uno")
    assert file.path == b"uno/two/file"
    assert two.child(b"x") == b"uno/two/x"
    tree.move(one, b"two", root, b"two")
    assert file.path == b"two/file"
    tree.unname(root, b"two")
    with pytest.raises(OSError, match="Stale") as caught:
        assert file.path
    assert caught.value.errno == errno.ESTALE


def test_an_inode_that_was_never_told_is_stale() -> None:
    tree: Tree[str] = Tree("root")
    with pytest.raises(OSError, match="Stale"):
        assert tree[7].inode == 7
    assert tree.get(7) is None
    tree.forget(7, 1)
    assert len(tree) == 1


def test_a_directory_that_seems_to_lie_in_itself_is_stale() -> None:
    """The system gives new directories the numbers of those that are gone."""
    tree: Tree[str] = Tree("root")
    root = tree[ROOT]
    one, two = tree.enter(2, "one"), tree.enter(3, "two")
    tree.name(one, root, b"one")
    tree.name(two, one, b"two")
    tree.name_only(one, two, b"one")
    with pytest.raises(OSError, match="Stale"):
        assert two.path
    tree.name_only(two, root, b"two")
    assert one.path == b"two/one"
    tree.unname(root, b"two")
    with pytest.raises(OSError, match="Stale"):
        assert one.path
