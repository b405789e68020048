"""Channels to other cores."""

import asyncio
from pathlib import Path

import pytest

from engine.core.peers import links as module
from engine.core.peers.links import Links
from engine.core.settings import Settings
from engine.model.errors import UsageError


async def test_a_core_has_one_channel_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    monkeypatch.setattr(module, "_CLOSED_AFTER", 0)
    links = Links(Settings(home=tmp_path))
    one, two = links.to("http://127.0.0.1:1"), links.to("http://127.0.0.1:2")
    assert links.to("http://127.0.0.1:1") is one
    links.to("http://127.0.0.1:3")
    await asyncio.sleep(0)
    assert links.to("http://127.0.0.1:1") is one, "used later than the other"
    assert links.to("http://127.0.0.1:2") is not two
    await links.close()


async def test_what_is_no_address_is_told(tmp_path: Path) -> None:
    links = Links(Settings(home=tmp_path))
    with pytest.raises(UsageError, match="not the address of a core"):
        links.to("nowhere")
    await links.close()
