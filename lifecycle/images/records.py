"""What platforms want to be told of an image in files besides report.toml: digest and references.

Source: the draft "Export Report" (`-exported`); Tekton's image resource, kbld;
`--image-digest-file` and `--image-refs` are ours.
"""

from __future__ import annotations

from ...publish.records import write_digest, write_record, write_references
from ..files.report import Report, write_exported
from ..inputs import Inputs
from .image import Saved


def write_records(inputs: Inputs, report: Report, saved: Saved) -> None:
    """Write the files that were asked for, whole or not at all, once the image has its names.

    An image that a daemon keeps without a manifest is told by its identifier, and
    referred to by its names.

    Raises:
        OSError: one cannot be written.
    """
    if inputs.exported_path is not None:
        write_exported(inputs.exported_path, report)
    digest = saved.digest
    if inputs.image_digest_file is not None:
        write_digest(inputs.image_digest_file, digest or saved.image_id)
    if inputs.image_refs is not None:
        if digest is None:
            write_record(inputs.image_refs, "".join(f"{name}\n" for name in saved.names))
        else:
            write_references(inputs.image_refs, [(name, digest) for name in saved.names])
