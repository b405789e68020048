from engine.cli import installation
from engine.flows import AtomicFlow, flow
from engine.hooks import Catalog


@flow
def add(a: int, b: int = 0) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


class Old(AtomicFlow):
    """Has the interface of aiflows only."""

    __default_flow_config = {"name": "Old", "description": "", "input_interface": ["n"]}  # noqa: RUF012


def test_a_flow_is_described_with_its_schemas():
    catalog = Catalog(flow_classes={"sums.add": add, "sums.Old": Old})
    interfaces = installation.flow(catalog, "sums.add")["interfaces"]
    assert interfaces["input_schema"]["required"] == ["a"]
    assert interfaces["output_schema"]["additionalProperties"] == {"type": "integer"}
    assert installation.flow(catalog, "sums.Old")["interfaces"] == {"input_interface": ["n"]}
