// The corpora of configuration files: what is wrong in them is found at its place, what is right in them means what is
// written beside them, and the examples of both RFCs have their outcome.
//
//   tests/config/wrong/*.yaml           what is expected stands in comments, all of it: "# error 7:12 UNKNOWN_OPTION
//   texts",
//                                       where each of the texts, divided by " | ", is part of the message or the hint
//   tests/config/right/GROUP/*.yaml     spellings of the same thing, which is written out in GROUP/meaning.txt;
//   warnings
//                                       are expected as above
//   tests/rfc/*.yaml                    the examples as they are printed; outcomes in expected.txt
//
// PRISM_WRITE=1 writes what is missing of meaning.txt.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "config/units.h"
#include "namespaces/parse.h"
#include "patterns/claim_check/options.h"
#include "patterns/components.h"
#include "patterns/outbox/options.h"

namespace prism {
namespace {

namespace fs = std::filesystem;

const fs::path kTests = PRISM_TESTS_DIR;

// Whatever is put in the place of ${env:SECRET} or ${file:secret.txt} must be seen nowhere.
constexpr std::string_view kSecret = "s3cr3t-value";

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.is_open()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<fs::path> files(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".yaml") out.push_back(entry.path());
  }
  std::ranges::sort(out);
  return out;
}

config::LoadOptions options(const fs::path& path) {
  config::LoadOptions out;
  out.file_name = path.filename().string();
  out.base_directory = path.parent_path().string();
  out.environment = [](const std::string& name) -> std::optional<std::string> {
    static const std::map<std::string, std::string> values = {{"SECRET", std::string(kSecret)},
                                                              {"STAGE", "test"},
                                                              {"EMPTY", ""},
                                                              {"NUMBER", "500"},
                                                              {"SIZE", "1MB"},
                                                              {"BACKEND", "kafka"},
                                                              {"FLAG", "false"},
                                                              {"TTL", "7 days"}};
    const auto found = values.find(name);
    if (found == values.end()) return std::nullopt;
    return found->second;
  };
  return out;
}

struct Finding {
  std::string severity;
  int line = 0, column = 0;
  std::string reason;
  std::vector<std::string> texts;  // of an expectation

  std::string key() const {
    return std::to_string(line) + ":" + std::to_string(column) + " " + severity + " " + reason;
  }
  auto order() const { return std::tuple(line, column, severity, reason); }
};

std::vector<Finding> expectations(const std::string& text) {
  static const std::regex form(R"(^ *# (error|warning) (\d+):(\d+) ([A-Z_]+) ?(.*)$)");
  std::vector<Finding> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    std::smatch match;
    if (!std::regex_match(line, match, form)) continue;
    Finding finding{match[1], std::stoi(match[2]), std::stoi(match[3]), match[4], {}};
    std::string rest = match[5];
    for (std::size_t at = 0; !rest.empty();) {
      at = rest.find(" | ");
      finding.texts.push_back(rest.substr(0, at));
      rest = at == std::string::npos ? "" : rest.substr(at + 3);
    }
    out.push_back(std::move(finding));
  }
  std::ranges::stable_sort(out, {}, &Finding::order);
  return out;
}

// Compares all that was found with all that was expected, in the order of the file.
void compare(const ParsedFile& parsed, const std::vector<Finding>& expected) {
  std::vector<config::Diagnostic> found = parsed.diagnostics.sorted();
  std::ranges::stable_sort(found, {}, [](const config::Diagnostic& item) {
    return Finding{std::string(to_string(item.severity)), item.position.line, item.position.column, item.reason, {}}
        .order();
  });
  std::vector<std::string> found_keys, expected_keys;
  for (const auto& item : found) {
    found_keys.push_back(
        Finding{std::string(to_string(item.severity)), item.position.line, item.position.column, item.reason, {}}
            .key());
  }
  for (const auto& item : expected) expected_keys.push_back(item.key());
  EXPECT_EQ(found_keys, expected_keys) << format_text(parsed.diagnostics);
  if (found_keys != expected_keys) return;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::string said = found[i].message + "\n" + found[i].hint;
    for (const std::string& text : expected[i].texts) {
      EXPECT_THAT(said, testing::HasSubstr(text)) << expected[i].key();
    }
  }
}

// ---- wrong files
// --------------------------------------------------------------------------------------------------------------------

// proves: F-08, F-20, F-21, F-22, F-23, X-08, L-15, L-16, L-17
TEST(WrongFiles, EveryMistakeIsFoundAtItsPlaceAndNothingElse) {
  const auto all = files(kTests / "config" / "wrong");
  EXPECT_GE(all.size(), 150U);
  for (const fs::path& path : all) {
    SCOPED_TRACE(path.filename().string());
    const std::string text = read(path);
    const auto expected = expectations(text);
    EXPECT_TRUE(std::ranges::any_of(expected, [](const Finding& each) { return each.severity == "error"; }));
    const auto parsed = parse_text(text, components(), options(path));
    EXPECT_FALSE(parsed.ok());
    compare(parsed, expected);
    for (const auto& item : parsed.diagnostics.items()) {
      EXPECT_GT(item.position.line, 0) << item.message;
      EXPECT_GT(item.position.column, 0) << item.message;
      EXPECT_EQ(item.position.file(), path.filename().string());
      EXPECT_FALSE(item.message.empty());
      EXPECT_EQ((item.message + item.hint).find('\n'), std::string::npos) << item.message;
      EXPECT_LT(item.message.size() + item.hint.size(), 1000U);
      EXPECT_FALSE(item.message.ends_with('.')) << item.message;
    }
    EXPECT_EQ(format_text(parsed.diagnostics).find(kSecret), std::string::npos);
    EXPECT_EQ(format_json(parsed.diagnostics).find(kSecret), std::string::npos);
  }
}

TEST(WrongFiles, EveryReasonOfThePageOfErrorsIsMet) {
  std::set<std::string> met;
  for (const char* const folder : {"wrong", "right"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kTests / "config" / folder)) {
      if (entry.path().extension() != ".yaml") continue;
      for (const auto& finding : expectations(read(entry.path()))) met.insert(finding.reason);
    }
  }
  // Reasons of the section "Configuration files" that no file can show: they need a backend, a limit, or a mistake of
  // the program; or they are of requirements and guarantees, which have tests of their own.
  const std::set<std::string> elsewhere = {
      "CONTRADICTING_GUARANTEES", "REQUIREMENTS_UNSATISFIABLE", "REQUIREMENT_AT_RISK",
      "BACKEND_NOT_AVAILABLE",    "BACKEND_NOT_CONFIGURED",     "DEPRECATED_OPTION",
      "NO_CONFIGURATION_ERROR",   "SQL_NOT_PORTABLE",           "STATE_STORE_MISSING"};
  std::istringstream page(read(kTests.parent_path() / "docs" / "reference" / "errors.md"));
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("## ")) inside = line == "## Configuration files";
    if (!inside || !line.starts_with("| `")) continue;
    const std::string reason = line.substr(3, line.find('`', 3) - 3);
    EXPECT_TRUE(met.contains(reason) || elsewhere.contains(reason)) << reason << " is shown by no file";
  }
}

// ---- right files
// --------------------------------------------------------------------------------------------------------------------

std::string dump(const config::Node& node) {
  if (node.is_null()) return "null";
  if (node.is_scalar()) return node.substituted() ? "(substituted)" : node.text();
  std::string out;
  for (const auto& item : node.items()) out += (out.empty() ? "" : ", ") + dump(item);
  if (node.is_sequence()) return "[" + out + "]";
  for (const auto& [key, position, value] : node.entries()) out += (out.empty() ? "" : ", ") + key + ": " + dump(value);
  return "{" + out + "}";
}

std::string lifetime(const std::optional<Clock::duration>& value) {
  return value ? config::format_duration(*value) : std::string("infinite");
}

std::string dump(const PatternSpec& pattern) {
  std::ostringstream out;
  out << "  pattern " << pattern.type << (pattern.enabled ? "" : " (disabled)") << "\n";
  config::Diagnostics none;
  if (pattern.type == "claim-check") {
    const auto o = claim_check::read_options(pattern.options, none);
    out << "    threshold " << config::format_size(o.threshold) << ", store " << o.backend << " bucket '" << o.bucket
        << "' prefix '" << o.prefix << "'\n    cleanup " << (o.on_consume ? "on consume" : "by age") << ", expiry "
        << lifetime(o.expiry) << ", orphans " << lifetime(o.orphan_age) << ", every " << lifetime(o.interval) << "\n";
  } else if (pattern.type == "outbox") {
    const auto o = outbox::read_options(pattern.options, none);
    out << "    table " << o.table << " of " << o.database << ", to '" << o.destination_backend << "' topic '"
        << o.destination_topic << "'\n    every " << lifetime(o.interval) << ", " << o.batch_size << " rows, "
        << (o.strategy == outbox::CleanupStrategy::remove ? "delete" : "mark published") << " after "
        << (o.retention ? config::format_duration(*o.retention) : std::string("-")) << "\n";
  } else {
    out << "    " << dump(pattern.options) << "\n";
  }
  return out.str();
}

// What a file means, whatever its spelling.
std::string dump(const FileSpec& file) {
  std::ostringstream out;
  const auto or_default = [](const auto& value) { return value ? *value : std::string("-"); };
  out << "server listen " << or_default(file.server.listen) << ", admin " << or_default(file.server.admin) << ", data "
      << or_default(file.server.data_dir) << "\n";
  for (const auto& backend : file.backends) {
    out << "backend " << backend.name << " is " << backend.type << " " << dump(backend.options) << "\n";
  }
  for (const auto& ns : file.namespaces) {
    out << "namespace " << ns.name << "\n  api " << to_string(ns.api()) << (ns.client_api ? ", given" : "") << "\n";
    const auto& b = ns.backend;
    out << "  backend '" << b.name << "' topic '" << b.topic << "' prefix '" << b.topic_prefix << "' partitions "
        << b.partitions.value_or(0) << " replication " << b.replication.value_or(0) << " connection " << dump(b.options)
        << "\n";
    for (const auto& pattern : ns.patterns) out << dump(pattern);
    if (ns.pub_sub) out << "  pub-sub\n";
    for (const auto& group : ns.consumer_groups) out << "  group " << group << "\n";
    if (!ns.state.empty()) out << "  state in " << ns.state << "\n";
    if (!ns.observability.trace_patterns) out << "  patterns are not traced\n";
    if (!ns.observability.pattern_metrics) out << "  patterns are not measured\n";
  }
  return out.str();
}

// proves: F-01, F-02, F-03, F-04, F-05, F-06, F-07, F-09, F-10, F-11, F-12, F-13, F-14, F-16, F-17, F-18, F-19, F-20,
// F-21, F-22, F-23
TEST(RightFiles, SpellingsOfTheSameMeanTheSame) {
  std::size_t count = 0;
  for (const auto& group : fs::directory_iterator(kTests / "config" / "right")) {
    if (!group.is_directory()) continue;
    const fs::path meaning = group.path() / "meaning.txt";
    for (const fs::path& path : files(group.path())) {
      SCOPED_TRACE(group.path().filename().string() + "/" + path.filename().string());
      ++count;
      const std::string text = read(path);
      const auto parsed = parse_text(text, components(), options(path));
      ASSERT_TRUE(parsed.ok()) << format_text(parsed.diagnostics);
      compare(parsed, expectations(text));
      const std::string meant = dump(parsed.file);
      EXPECT_EQ(meant.find(kSecret), std::string::npos);
      if (!fs::exists(meaning) && std::getenv("PRISM_WRITE") != nullptr) std::ofstream(meaning) << meant;
      EXPECT_EQ(meant, read(meaning));
    }
  }
  EXPECT_GE(count, 60U);
}

// ---- the RFCs' examples
// -------------------------------------------------------------------------------------------------------------

// Patterns and options of the examples that this program does not have yet. These lists only get shorter.
const std::set<std::string> kPatternsToCome = {"cache",          "change-data-capture", "cqrs",
                                               "event-sourcing", "tiered-storage",      "write-ahead-log"};
const std::set<std::string> kOptionsToCome = {"claim_check_field", "compression", "schema", "topic_pattern"};

// A fragment, put into a namespace.
std::string wrapped(const std::string& text) {
  std::string out = "namespaces:\n  - name: example\n";
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) out += line.empty() ? "\n" : "    " + line + "\n";
  return out;
}

struct Example {
  std::string file;
  bool fragment = false;
  std::vector<Finding> expected;
};

std::vector<Example> examples() {
  std::vector<Example> out;
  std::istringstream lines(read(kTests / "rfc" / "expected.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    if (line.starts_with("  ")) {
      const auto more = expectations("#" + line.substr(1) + "\n");
      EXPECT_EQ(more.size(), 1U) << line;
      if (!out.empty()) out.back().expected.insert(out.back().expected.end(), more.begin(), more.end());
      continue;
    }
    const bool fragment = line.ends_with(" in a namespace");
    out.push_back({line.substr(0, line.find(' ')), fragment, {}});
  }
  return out;
}

// proves: F-26, F-15, F-25, X-09, X-10, X-12, X-14, X-15
TEST(Rfc, EveryExampleHasItsOutcome) {
  std::set<std::string> covered, patterns_met, options_met;
  for (Example& example : examples()) {
    SCOPED_TRACE(example.file);
    const fs::path path = kTests / "rfc" / example.file;
    covered.insert(example.file);
    const std::string text = read(path);
    const auto parsed = parse_text(example.fragment ? wrapped(text) : text, components(), options(path));
    for (Finding& finding : example.expected) {  // from the place in the fragment to that in the whole
      if (!example.fragment) continue;
      finding.line += 2;
      finding.column += 4;
    }
    std::ranges::stable_sort(example.expected, {}, &Finding::order);
    compare(parsed, example.expected);
    for (const auto& item : parsed.diagnostics.items()) {
      if (item.reason == "PATTERN_NOT_AVAILABLE") {
        const std::string name = item.message.substr(13, item.message.find('\'', 13) - 13);
        EXPECT_TRUE(kPatternsToCome.contains(name)) << name;
        patterns_met.insert(name);
      } else if (item.reason == "OPTION_NOT_AVAILABLE") {
        const std::string name = item.message.substr(1, item.message.find('\'', 1) - 1);
        EXPECT_TRUE(kOptionsToCome.contains(name)) << name;
        options_met.insert(name);
      }
    }
  }
  EXPECT_EQ(patterns_met, kPatternsToCome) << "one that is built leaves the list";
  EXPECT_EQ(options_met, kOptionsToCome) << "one that is built leaves the list";
  EXPECT_LE(kPatternsToCome.size(), 6U);
  EXPECT_LE(kOptionsToCome.size(), 4U);
  std::set<std::string> present;
  for (const fs::path& path : files(kTests / "rfc")) present.insert(path.filename().string());
  EXPECT_EQ(covered, present);
}

}  // namespace
}  // namespace prism
