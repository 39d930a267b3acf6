"""The data sets that the workbench knows: where they are, what they hash to, how to get them."""

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class Dataset:
    """One file of one data set.

    Attributes:
        name: how code asks for it.
        file: path below the project's `data/`, and the file name to look for elsewhere.
        sha256: checksum of the bytes.
        licence: licence, and where its text is.
        source: where the bytes come from, in words a person can follow.
        url: where to download it, or None when it ships with the project.
    """

    name: str
    file: str
    sha256: str
    licence: str
    source: str
    url: str | None = None


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="detector_counts",
            file="traffic/detector_counts.parquet",
            sha256="29746e4af4a5a9b46585687c7c9aab8a3a7c2c7694ca193196593e478c5c5d65",
            licence="MIT, data/traffic/detector_counts.LICENSE.txt",
            source="pip download --no-deps traffic-anomaly==2.5.4; in it traffic_anomaly/data/sample_counts.parquet",
        ),
    )
}


def sha256(path: Path) -> str:
    """Checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(name: str, datasets: dict[str, Dataset] = DATASETS, shipped: Path = SHIPPED) -> Path:
    """Return the path of a data set's file, its checksum verified; download it where that is possible.

    Looks in the project's `data/`, then below the folder that WORKBENCH_DATA names, then in the cache of
    earlier downloads. WORKBENCH_OFFLINE=1 forbids downloads.

    Raises:
        ValueError: unknown name, or a file whose bytes are not the registered ones.
        FileNotFoundError: nowhere to be found, and no download is possible.
    """
    if name not in datasets:
        near = get_close_matches(name, datasets, 1)
        raise ValueError(
            f"data set {name!r} is unknown{f', did you mean {near[0]!r}' if near else ''}; "
            f"there are {', '.join(datasets)}."
        )
    dataset = datasets[name]
    places = [shipped / dataset.file]
    if local := os.environ.get("WORKBENCH_DATA"):
        places += [Path(local) / dataset.file, *sorted(Path(local).rglob(Path(dataset.file).name))]
    for path in places:
        if path.is_file():
            return verified(path, dataset)
    import pooch

    file = Path(dataset.file).name
    cached = Path(pooch.os_cache("workbench")) / file
    if cached.is_file():
        return verified(cached, dataset)
    advice = (
        f"Get it from: {dataset.url or dataset.source}\nSHA-256 {dataset.sha256}; put it at {places[0]} or anywhere "
        "below the folder in WORKBENCH_DATA."
    )
    if dataset.url is None or os.environ.get("WORKBENCH_OFFLINE") == "1":
        why = "it is not downloaded" if dataset.url is None else "downloads are switched off (--offline)"
        raise FileNotFoundError(f"{dataset.file} is missing, and {why}. {advice}")
    try:
        return Path(pooch.retrieve(dataset.url, f"sha256:{dataset.sha256}", fname=file, path=cached.parent))
    except OSError as error:  # requests' errors are among them
        raise FileNotFoundError(f"{dataset.file} could not be downloaded ({error}). {advice}") from error


def verified(path: Path, dataset: Dataset) -> Path:
    """The path, if its bytes are the registered ones.

    Raises:
        ValueError: they are not.
    """
    if (found := sha256(path)) != dataset.sha256:
        raise ValueError(
            f"{path} has SHA-256 {found[:16]}…, and {dataset.name} is {dataset.sha256[:16]}…; it was "
            f"changed or cut off. Get it again from: {dataset.url or dataset.source}"
        )
    return path
