"""The picture from made-up results."""
from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.tools.dev.paper_claims.made_up import results
from tools.dev.paper_claims import picture


def test_picture_is_drawn(tmp_path: Path):
    path = tmp_path / 'claims.png'
    picture.draw(results(dcnv4=95.0), path)
    with Image.open(path) as drawn:
        assert drawn.size == (1300, 760)
        assert len(drawn.convert('RGB').getcolors(2**20)) > 50
