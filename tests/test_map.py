"""README agrees with the tree: its file map, its commands, its links and the errors that it explains."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def tree() -> set[str]:
    """Every file that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in files if (ROOT / name).is_file()}


def mapped() -> tuple[set[str], set[str]]:
    """The files and the whole folders that the map lists: names come first, two spaces end them."""
    files, folders, folder, whole = set(), set(), "", False
    for line in README.split("## File map")[1].split("```")[1].splitlines():
        names = line.strip().partition("  ")[0].split()
        if line.startswith(" "):
            files |= {folder + name for name in names}
        elif names and names[0].endswith("/"):
            folder, whole = names[0], "  " in line.strip()
            folders |= {folder} if whole else set()
        else:
            files |= set(names)
    return files, folders


def test_the_map_lists_what_exists():
    files, folders = mapped()
    assert sorted(files - tree()) == []
    assert [folder for folder in folders if not any(name.startswith(folder) for name in tree())] == []


def test_the_map_leaves_nothing_out():
    files, folders = mapped()
    rest = {name for name in tree() - files if not name.startswith(tuple(folders))}
    assert sorted(name for name in rest if not name.endswith("__init__.py")) == []


def test_the_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    first_screen = README.split("```")[1]
    assert re.findall(r"^make ([a-z]+)", first_screen, re.MULTILINE) == ["run", "test", "lab"]
    assert set(re.findall(r"make ([a-z]+)[` \n]", README.split("## File map")[0])) <= targets


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_the_errors_explained_are_the_errors_raised():
    table = README.split("## When something is wrong")[1].split("##")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    source = "".join(path.read_text() for path in (ROOT / "workbench").rglob("*.py"))
    assert rows
    assert [text for row in rows for text in re.findall(r"`([^`]+)`", row) if text not in source] == []
