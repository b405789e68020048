"""docs/many-cores.md: users of two cores, introduced as it says, run a task together."""

from tests.conftest import ROOT
from tests.support.cores import Places, places  # noqa: F401
from tests.support.markdown import blocks
from tests.support.stock import blocking

(INTRODUCTION,) = blocks(ROOT / "docs" / "many-cores.md", "python")


async def test_users_are_introduced_as_shown(places: Places) -> None:  # noqa: F811
    alice, bob = await places.members(2)
    await bob.knows(alice)
    names = {
        "alice": alice.sdk,
        "bob_user_id": bob.user_id,
        "bobs_guest_token": await bob.guest_token(),
    }
    text = INTRODUCTION.text.replace("http://bobs.example:2021", bob.core.address)
    await blocking(exec, text, names)
    task_id = await alice.run(bob)
    await bob.reaches(task_id, "started")
