"""Where the service listens, and to which Host names it answers there."""

from __future__ import annotations

import pytest

from frazil.model.errors import FrazilError
from frazil_web.__main__ import listen, main, split_address
from frazil_web.app import hosts_for


@pytest.mark.parametrize(
    ("address", "expected"), [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:80", ("::1", 80)), ("[::]:0", ("::", 0))]
)
def test_addresses_are_split(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize("address", ["", "8080", ":8080", "localhost", "localhost:http", "localhost:99999"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(FrazilError):
        split_address(address)


def test_only_a_loopback_address_restricts_host_names() -> None:
    assert "localhost" in hosts_for("127.0.0.1")
    assert hosts_for("::") == ("*",)


def test_a_wrong_address_ends_the_program_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--address", "nowhere"])
    assert caught.value.code == 2
    assert "write it as 127.0.0.1:8080" in capsys.readouterr().err


def test_a_taken_port_is_said() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(FrazilError, match="choose another"):
        listen("127.0.0.1", first.getsockname()[1])
