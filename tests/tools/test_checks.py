"""The checks themselves: each passes on this project and fails on a tree that breaks its rule. Runs with the system's Python."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(script: str, root: pathlib.Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, ROOT / "scripts" / script, "--root", root, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


class Tree(unittest.TestCase):
    def setUp(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.root = pathlib.Path(self._folder.name)

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


class Layers(Tree):
    def setUp(self) -> None:
        super().setUp()
        self.write("src/components.def", "BACKEND(sqlite)\nPATTERN(outbox)\n")
        for folder in ("backends/sqlite", "patterns/outbox"):
            for file in ("README.md", "CMakeLists.txt", "some_test.cc"):
                self.write(f"src/{folder}/{file}")
        for folder in ("api", "namespaces", "capabilities", "base", "runtime", "telemetry", "config"):
            self.write(f"src/{folder}/empty.h")

    def refused(self, path: str, include: str) -> str:
        self.write(path, f"#include {include}\n")
        code, output = run("check-layers", self.root)
        self.assertEqual(code, 1, output)
        self.assertIn(path + ":1", output)
        return output

    def accepted(self, path: str, include: str) -> None:
        self.write(path, f"#include {include}\n")
        code, output = run("check-layers", self.root)
        self.assertEqual(code, 0, output)

    def test_this_project_is_good(self) -> None:
        code, output = run("check-layers", ROOT)
        self.assertEqual(code, 0, output)

    def test_dependencies_point_one_way(self) -> None:
        self.refused("src/capabilities/a.h", '"patterns/pattern.h"')

    def test_a_backend_knows_no_pattern(self) -> None:
        self.refused("src/backends/sqlite/a.cc", '"patterns/pattern.h"')

    def test_namespaces_know_no_concrete_pattern(self) -> None:
        self.assertIn("concrete", self.refused("src/namespaces/a.cc", '"patterns/outbox/outbox.h"'))

    def test_one_pattern_knows_no_other(self) -> None:
        self.write("src/patterns/other/CMakeLists.txt")
        self.refused("src/patterns/outbox/a.cc", '"patterns/other/other.h"')

    def test_base_knows_nothing(self) -> None:
        self.refused("src/base/a.h", '"runtime/task.h"')

    def test_main_may_know_all(self) -> None:
        self.accepted("src/components.cc", '"backends/sqlite/engine.h"')

    def test_tests_beside_the_code_may_know_all(self) -> None:
        self.accepted("src/patterns/outbox/a_test.cc", '"backends/sqlite/engine.h"')

    def test_a_vendors_header_stays_in_its_folder(self) -> None:
        self.refused("src/patterns/outbox/a.cc", "<sqlite3.h>")

    def test_grpc_stays_in_the_api(self) -> None:
        self.refused("src/namespaces/a.cc", "<grpcpp/grpcpp.h>")

    def test_the_contract_stays_in_the_api(self) -> None:
        self.refused("src/patterns/a.h", '"prism/pubsub/v1/pubsub.pb.h"')

    def test_a_vendors_header_in_its_folder(self) -> None:
        self.accepted("src/backends/sqlite/a.cc", "<sqlite3.h>")

    def test_suites_are_for_tests(self) -> None:
        self.refused("src/backends/sqlite/a.cc", '"capabilities/testing/lease_suite.h"')

    def test_a_new_folder_needs_a_place(self) -> None:
        self.assertIn("no place", self.refused("src/gadgets/a.cc", '"base/error.h"'))

    def test_anatomy(self) -> None:
        (self.root / "src/backends/sqlite/README.md").unlink()
        self.write("src/patterns/unlisted/outline.h")
        code, output = run("check-layers", self.root)
        self.assertEqual(code, 1)
        self.assertIn("src/backends/sqlite: has no README.md", output)
        self.assertIn("src/patterns/unlisted: is not listed", output)


class Words(Tree):
    def refused(self, text: str) -> None:
        self.write("a.txt", text)
        code, output = run("check-words", self.root)
        self.assertEqual(code, 1, output)
        self.assertIn("a.txt:1", output)

    def test_this_project_is_good(self) -> None:
        code, output = run("check-words", ROOT)
        self.assertEqual(code, 0, output)

    def test_notes_to_oneself(self) -> None:
        self.refused("// TO" + "DO: later")

    def test_paths_of_a_machine(self) -> None:
        self.refused("see /ho" + "me/somebody/prism/x.md")

    def test_registries(self) -> None:
        self.refused("https://pyp" + "i.org/simple")

    def test_ordinary_text(self) -> None:
        self.write("a.txt", "a hackathon at /workshop/ and pypi packages in ./root/")
        code, output = run("check-words", self.root)
        self.assertEqual(code, 0, output)


class LogKeys(Tree):
    def setUp(self) -> None:
        super().setUp()
        self.write("src/telemetry/log.h", 'inline constexpr std::array kKeys = std::to_array<std::string_view>({\n    "topic",\n    "bytes",\n});\n')

    def check(self, *keys: str) -> tuple[int, str]:
        self.write("docs/reference/logging.md", "| key | meaning |\n|---|---|\n" + "".join(f"| `{key}` | It. |\n" for key in keys))
        return run("check-log-keys", self.root)

    # proves: M-27
    def test_this_project_is_good(self) -> None:
        code, output = run("check-log-keys", ROOT)
        self.assertEqual(code, 0, output)

    def test_all_listed(self) -> None:
        self.assertEqual(self.check("bytes", "topic")[0], 0)

    def test_missing(self) -> None:
        code, output = self.check("topic")
        self.assertEqual(code, 1)
        self.assertIn("the key bytes is missing", output)

    def test_too_many(self) -> None:
        code, output = self.check("topic", "bytes", "words", "topic")
        self.assertEqual(code, 1)
        self.assertIn("no line can have the key words", output)
        self.assertIn("topic stands there twice", output)


class Errors(Tree):
    def setUp(self) -> None:
        super().setUp()
        self.write("src/a.cc", 'return fail(Code::not_found, "THING_NOT_FOUND", "no thing");\n')
        self.rows("| `THING_NOT_FOUND` | NOT_FOUND | There is none. | Make one. |\n")

    def rows(self, text: str) -> None:
        self.write("docs/reference/errors.md", "| reason | code | meaning | what to do |\n|---|---|---|---|\n" + text)

    def check(self) -> tuple[int, str]:
        return run("check-errors", self.root)

    def test_this_project_is_good(self) -> None:
        code, output = run("check-errors", ROOT)
        self.assertEqual(code, 0, output)

    def test_all_listed(self) -> None:
        self.assertEqual(self.check()[0], 0)

    def test_missing(self) -> None:
        self.write("src/b.cc", 'fail(Code::internal, "OTHER_THING", "x");')
        code, output = self.check()
        self.assertEqual(code, 1)
        self.assertIn("src/b.cc:1: OTHER_THING is not listed", output)

    def test_unused(self) -> None:
        self.write("src/a.cc", "")
        code, output = self.check()
        self.assertEqual(code, 1)
        self.assertIn("THING_NOT_FOUND is listed and not in use", output)

    def test_another_status_code(self) -> None:
        self.write("src/a.cc", 'fail(Code::aborted, "THING_NOT_FOUND", "x");')
        code, output = self.check()
        self.assertEqual(code, 1)
        self.assertIn("used with ABORTED", output)

    def test_tests_do_not_count(self) -> None:
        self.write("src/b_test.cc", '"ONLY_IN_TESTS"')
        self.assertEqual(self.check()[0], 0)


class MetricsReference(unittest.TestCase):
    def test_the_page_is_as_listed(self) -> None:
        check = subprocess.run([ROOT / "scripts" / "metrics-reference", "--check"], capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stderr)


class Requirements(Tree):
    def setUp(self) -> None:
        super().setUp()
        self.write(
            "docs/requirements.md",
            "# Requirements\n\nDelivered stages: foundation.\n\n| id | requirement | delivered in |\n|---|---|---|\n"
            "| A-01 | This. | foundation |\n| A-02 | That. | foundation |\n| A-03 | Else. | later |\n",
        )
        self.write("tests/requirements/unproved.txt", "")
        self.write("src/a_test.cc", "// pro" "ves: A-01,\n//   A-02\n")

    def check(self, *arguments: str) -> tuple[int, str]:
        return run("requirements", self.root, *arguments)

    def test_this_project_is_good(self) -> None:
        code, output = run("requirements", ROOT, "--check")
        self.assertEqual(code, 0, output)

    def test_all_proved(self) -> None:
        code, output = self.check("--check")
        self.assertEqual(code, 0, output)

    def test_unproved_is_refused_unless_listed(self) -> None:
        self.write("src/a_test.cc", "// pro" "ves: A-01\n")
        code, output = self.check("--check")
        self.assertEqual(code, 1)
        self.assertIn("A-02", output)
        self.write("tests/requirements/unproved.txt", "A-02  why\n")
        self.assertEqual(self.check("--check")[0], 0)

    def test_the_list_only_shrinks(self) -> None:
        self.write("tests/requirements/unproved.txt", "A-01\n")
        code, output = self.check("--check")
        self.assertEqual(code, 1)
        self.assertIn("A-01 is proved", output)

    def test_unknown_ids_are_refused(self) -> None:
        self.write("src/b_test.cc", "// pro" "ves: Z-99\n")
        code, output = self.check("--check")
        self.assertEqual(code, 1)
        self.assertIn("src/b_test.cc:1: Z-99", output)


if __name__ == "__main__":
    unittest.main()
