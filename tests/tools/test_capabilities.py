"""scripts/capabilities: the page follows from what the run has shown, and a difference is found."""

import os
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "capabilities"


def case(classname: str, name: str, inside: str = "") -> str:
    return f'<testcase name="{name}" status="run" result="completed" classname="{classname}">{inside}</testcase>'


def feature(name: str, value: str) -> str:
    return f'<properties><property name="feature.{name}" value="{value}"/></properties>'


class Capabilities(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = pathlib.Path(folder.name) / "results"
        self.results.mkdir()
        self.page = pathlib.Path(folder.name) / "page.md"

    def show(self, file: str, *cases: str) -> None:
        (self.results / file).write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")

    def run_script(self, what: str, required: bool = False) -> tuple[int, str]:
        environment = os.environ | {"CI": "", "PRISM_REQUIRE_SERVERS": "1" if required else ""}
        command = [SCRIPT, what, "--results", self.results, "--page", self.page]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout + done.stderr

    def show_both(self) -> None:
        self.show("a.xml", case("Sqlite/LeaseSuite", "OneHolderAtATime/0"), case("Sqlite/LeaseSuite", "AGuard/0", feature("guards", "yes")))
        skip = '<skipped message="x_test.cc:7&#x0A;this backend has no guards"/>'
        self.show("b.xml", case("Redis/LeaseSuite", "OneHolderAtATime/0"), case("Redis/LeaseSuite", "AGuard/0", feature("guards", "no") + skip))

    def test_the_page_says_what_was_shown_and_what_was_shown_to_be_absent(self) -> None:
        self.show_both()
        self.assertEqual(self.run_script("--write")[0], 0)
        text = self.page.read_text()
        self.assertIn("| Capability | sqlite | redis |", text)
        self.assertIn("| A transaction can be made to fail when a lease is lost | yes | no, and the run shows that it is not there |", text)
        self.assertIn("| A guard | yes | [1] |", text)
        self.assertIn("[1] redis: this backend has no guards", text)
        self.assertEqual(self.run_script("--check"), (0, "capabilities: good\n"))

    def test_another_result_is_found(self) -> None:
        self.show_both()
        self.run_script("--write")
        self.show("a.xml", case("Sqlite/LeaseSuite", "OneHolderAtATime/0"), case("Sqlite/LeaseSuite", "AGuard/0", feature("guards", "no")))
        status, text = self.run_script("--check")
        self.assertEqual(status, 1)
        self.assertIn("is not what the run has shown", text)

    def test_a_failure_makes_no_page(self) -> None:
        self.show("a.xml", case("Sqlite/LeaseSuite", "OneHolderAtATime/0", '<failure message="no"/>'))
        status, text = self.run_script("--write")
        self.assertEqual(status, 1)
        self.assertIn("failed: sqlite LeaseSuite.OneHolderAtATime", text)

    def test_a_backend_that_was_not_run_is_missed_where_it_is_required(self) -> None:
        self.show_both()
        self.run_script("--write")
        (self.results / "b.xml").unlink()
        self.assertEqual(self.run_script("--check")[0], 77)
        self.assertEqual(self.run_script("--check", required=True)[0], 1)

    def test_nothing_shown_is_a_failure(self) -> None:
        self.assertEqual(self.run_script("--check")[0], 1)


if __name__ == "__main__":
    unittest.main()
