"""What a stage reported, as curifactory keeps it for later runs: files that nobody writes whole.

A list of pickles in JSON beside the artifact, with metadata. curifactory opens them whenever the
stage's outputs are cached, so that one which a full disk or a power failure tore would fail every
later run, although the artifact is whole.
"""

import json
import logging
import pickle
from pathlib import Path

from ..params.curifactory_api import Record

_LIST = "reportables_file_list"


def drop_torn_reportables(record: Record) -> bool:
    """Delete the list of what a stage reported if a part of it is torn; return whether it was."""
    listed = Path(record.get_path(f"{_LIST}.json", track=False))
    metadata = Path(record.get_path(f"{_LIST}_metadata.json", track=False))
    if not listed.exists():
        return False
    try:
        for path in json.loads(listed.read_bytes()):
            if Path(path).exists():
                pickle.loads(Path(path).read_bytes())
        if metadata.exists():
            json.loads(metadata.read_bytes())["extra"]
    except (ImportError, AttributeError, OSError):
        return False  # not torn: curifactory says what is missing
    except Exception as error:
        if not record.manager.map_mode:  # else curifactory only looks ahead, and asks again
            logging.getLogger().warning(
                "What stage '%s' reported is torn and was deleted ('%s': %r).",
                record.manager.current_stage_name,
                listed,
                error,
            )
            listed.unlink()
        return True
    return False
