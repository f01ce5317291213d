#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "config/document.h"
#include "config/json_schema.h"
#include "config/redact.h"
#include "config/schema.h"
#include "config/suggestions.h"
#include "config/template.h"
#include "config/units.h"

namespace prism::config {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

// ---- units
// ----------------------------------------------------------------------------------------------------------------

// proves: F-20, C-03
TEST(Units, SizesAreExact) {
  const std::vector<std::pair<std::string, std::uint64_t>> cases = {{"0", 0},
                                                                    {"512", 512},
                                                                    {"1MB", 1'000'000},
                                                                    {"10MB", 10'000'000},
                                                                    {"1 MB", 1'000'000},
                                                                    {"5GB", 5'000'000'000},
                                                                    {"10GB", 10'000'000'000},
                                                                    {"1TB", 1'000'000'000'000},
                                                                    {"1kB", 1000},
                                                                    {"1KB", 1000},
                                                                    {"1.5MB", 1'500'000},
                                                                    {"0.5KiB", 512},
                                                                    {"1KiB", 1024},
                                                                    {"1MiB", 1048576},
                                                                    {"8MiB", 8388608},
                                                                    {"1GiB", 1ULL << 30},
                                                                    {"1TiB", 1ULL << 40},
                                                                    {"7B", 7},
                                                                    {"18446744073709551615", ~0ULL},
                                                                    {"1_MB", 1'000'000}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = parse_size(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(Units, WhatIsNoSizeIsRefused) {
  for (const std::string text :
       {"", " ", "MB", "-1MB", "1.MB", ".5MB", "1.5B", "1Mbit", "1 MB ", "1MB2", "1M", "1e6", "18446744073709551616",
        "16777216TiB", "99999999999999999999999MB", "0x10", "infinite"}) {
    const auto parsed = parse_size(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().reason, "INVALID_SIZE") << text;
  }
  EXPECT_EQ(parse_size("10M").error().hint, "did you mean '10MB'?");
  EXPECT_THAT(parse_size("1,5MB").error().hint, HasSubstr("without commas"));
  EXPECT_LT(parse_size(std::string(100'000, '9')).error().message.size(), 200U);
}

// proves: F-24
TEST(Units, RatesAreASecond) {
  const std::vector<std::pair<std::string, double>> cases = {{"10k msgs/s", 10'000},
                                                             {"10000/s", 10'000},
                                                             {"10K/s", 10'000},
                                                             {"500 msgs / second", 500},
                                                             {"1.5M events per second", 1.5e6},
                                                             {"600/min", 10},
                                                             {"2 per m", 2.0 / 60},
                                                             {"100", 100},
                                                             {"10k", 10'000},
                                                             {"86400 per day", 1},
                                                             {"7 messages/s", 7}};
  for (const auto& [text, expected] : cases) {
    const auto parsed = parse_rate(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_DOUBLE_EQ(*parsed, expected) << text;
  }
  for (const std::string text :
       {"", "fast", "-1/s", "0/s", "10 msgs", "10/", "10/parsec", "10x/s", "10k msgs/s/s", "1e13/s", "10 per"}) {
    const auto parsed = parse_rate(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().reason, "INVALID_RATE") << text;
  }
}

TEST(Units, HintsSayWhatWasMeant) {
  EXPECT_EQ(parse_duration("5 minuts").error().hint, "did you mean 'minute'?");
  EXPECT_THAT(parse_duration("1 month").error().hint, HasSubstr("30 days"));
  EXPECT_THAT(parse_duration("-1").error().hint, HasSubstr("infinite"));
  EXPECT_THAT(parse_duration("forever").error().hint, HasSubstr("infinite"));
}

// proves: F-21, F-22, F-23
TEST(Units, DurationsAreExact) {
  const std::vector<std::pair<std::string, std::chrono::nanoseconds>> cases = {
      {"0", 0s},        {"86400", 24h},        {"900", 900s},
      {"100ms", 100ms}, {"1000ms", 1s},        {"60s", 60s},
      {"3600s", 1h},    {"30 days", 720h},     {"1_day", 24h},
      {"1 day", 24h},   {"24h", 24h},          {"7d", 168h},
      {"2w", 336h},     {"5us", 5us},          {"5ns", 5ns},
      {"1.5s", 1500ms}, {"1h30m", 90min},      {"1h 30m", 90min},
      {"0.1", 100ms},   {"15 minutes", 15min}, {"9223372036854775807ns", std::chrono::nanoseconds::max()}};
  for (const auto& [text, expected] : cases) {
    const auto parsed = parse_duration(text);
    ASSERT_TRUE(parsed) << text;
    ASSERT_TRUE(*parsed) << text;
    EXPECT_EQ(**parsed, expected) << text;
  }
  for (const std::string text : {"infinite", "null", "Infinite"}) {
    const auto parsed = parse_duration(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_FALSE(parsed->has_value()) << text;
  }
  for (const std::string text : {"", "s", "-1s", "1 fortnight", "1h30", "1h ", "1_", "300 years", "0.5ns",
                                 "400000000000", "9223372036854775808ns", "1hh"}) {
    const auto parsed = parse_duration(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().reason, "INVALID_DURATION") << text;
  }
}

TEST(Units, FormattedValuesReadBack) {
  EXPECT_EQ(format_size(1'000'000), "1MB");
  EXPECT_EQ(format_size(8ULL << 20), "8MiB");
  EXPECT_EQ(format_size(1'500'000), "1500kB");
  EXPECT_EQ(format_size(0), "0B");
  EXPECT_EQ(format_lifetime(Lifetime{168h}), "7d");
  EXPECT_EQ(format_duration(100ms), "100ms");
  EXPECT_EQ(format_lifetime(Lifetime{}), "infinite");
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    const std::uint64_t size = random() >> (random() % 64);
    EXPECT_EQ(*parse_size(format_size(size)), size);
    const std::chrono::nanoseconds duration(static_cast<std::int64_t>(random() >> 1 >> (random() % 63)));
    EXPECT_EQ(**parse_duration(format_duration(duration)), duration);
  }
}

// ---- suggestions
// ------------------------------------------------------------------------------------------------------------

TEST(Suggestions, NearestName) {
  const std::vector<std::string> known = {"threshold", "storage", "cleanup", "batch_size", "wal"};
  EXPECT_EQ(nearest("threshhold", known), "threshold");
  EXPECT_EQ(nearest("tresholds", known), "threshold");
  EXPECT_EQ(nearest("Batch-Size", known), "batch_size");
  EXPECT_EQ(nearest("cleaunp", known), "cleanup");
  EXPECT_EQ(nearest("zebra", known), std::nullopt);
  EXPECT_EQ(nearest("", known), std::nullopt);
  EXPECT_EQ(edit_distance("ab", "ba"), 1U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(suggest("storag", known), "did you mean 'storage'?");
  EXPECT_THAT(suggest("zebra", known), HasSubstr("known here: threshold"));
}

// ---- document
// -----------------------------------------------------------------------------------------------------------------

struct Loaded {
  std::optional<Node> node;
  Diagnostics diagnostics;
};

Loaded load(std::string_view text, LoadOptions options = {}) {
  Loaded out;
  options.file_name = "test.yaml";
  out.node = load_text(text, options, out.diagnostics);
  return out;
}

TEST(Document, KeepsOrderQuotesAndPlaces) {
  const auto [node, diagnostics] =
      load("b: 1\na:\n  - \"x\"\n  - null\n  - {k: 'v'}\nempty:\nblock: |\n  one\n  two\n");
  ASSERT_TRUE(node) << format_text(diagnostics);
  ASSERT_TRUE(node->is_map());
  ASSERT_EQ(node->entries().size(), 4U);
  EXPECT_EQ(node->entries()[0].key, "b");
  EXPECT_EQ(node->find("b")->text(), "1");
  EXPECT_FALSE(node->find("b")->quoted());
  EXPECT_EQ(node->find("b")->position().to_string(), "test.yaml:1:4");
  const Node& list = *node->find("a");
  ASSERT_EQ(list.items().size(), 3U);
  EXPECT_TRUE(list.items()[0].quoted());
  EXPECT_EQ(list.items()[0].path(), "a[0]");
  EXPECT_EQ(list.items()[0].position().to_string(), "test.yaml:3:5");
  EXPECT_TRUE(list.items()[1].is_null());
  EXPECT_EQ(list.items()[2].find("k")->path(), "a[2].k");
  EXPECT_EQ(node->entry("empty")->key_position.to_string(), "test.yaml:6:1");
  EXPECT_TRUE(node->find("empty")->is_null());
  EXPECT_EQ(node->find("block")->text(), "one\ntwo\n");
  EXPECT_EQ(node->find("nothing"), nullptr);
}

TEST(Document, ColumnsCountCharacters) {
  const auto [node, diagnostics] = load("{\"\xc3\xa9\xe2\x82\xac\": x, b: y}");
  ASSERT_TRUE(node) << format_text(diagnostics);
  EXPECT_EQ(node->find("b")->position().column, 14);
}

TEST(Document, AnEmptyTextIsNull) {
  for (const std::string text : {"", "\n\n", "# only a comment\n", "---\n", "\xef\xbb\xbf", "null"}) {
    const auto [node, diagnostics] = load(text);
    ASSERT_TRUE(node) << text;
    EXPECT_TRUE(node->is_null()) << text;
  }
}

// proves: F-25
TEST(Document, BlockScalarsAreVerbatim) {
  const auto [node, diagnostics] = load("schema: |\n  CREATE TABLE t (\n    id  BIGSERIAL -- it's #1\n  );\n");
  ASSERT_TRUE(node);
  EXPECT_EQ(node->find("schema")->text(), "CREATE TABLE t (\n  id  BIGSERIAL -- it's #1\n);\n");
}

TEST(Document, AllDuplicateKeysAreNamedWithBothLines) {
  const auto [node, diagnostics] = load("a: 1\nb: {c: 1, c: 2}\na: 2\n");
  EXPECT_FALSE(node);
  ASSERT_EQ(diagnostics.error_count(), 2U);
  EXPECT_EQ(diagnostics.items()[0].reason, "DUPLICATE_KEY");
  EXPECT_EQ(diagnostics.items()[0].path, "b.c");
  EXPECT_THAT(diagnostics.items()[1].message, HasSubstr("in line 1 and in line 3"));
  EXPECT_EQ(diagnostics.items()[1].position.to_string(), "test.yaml:3:1");
}

TEST(Document, AnchorsAndMerges) {
  const auto [node, diagnostics] =
      load("base: &b {x: 1, y: 2}\none:\n  <<: *b\n  y: 3\ntwo: *b\nthree:\n  <<: [*b, {z: 4}]\n");
  ASSERT_TRUE(node) << format_text(diagnostics);
  EXPECT_EQ(node->find("one")->find("x")->text(), "1");
  EXPECT_EQ(node->find("one")->find("y")->text(), "3");
  EXPECT_EQ(node->find("one")->entries().size(), 2U);
  EXPECT_EQ(node->find("two")->find("y")->text(), "2");
  EXPECT_EQ(node->find("three")->find("z")->text(), "4");
}

TEST(Document, EachFaultHasItsReason) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a: [1, 2", "SYNTAX_ERROR"},
      {"a: b: c", "SYNTAX_ERROR"},
      {"\ta: 1", "SYNTAX_ERROR"},
      {"a: 'x", "SYNTAX_ERROR"},
      {"a: *nobody", "SYNTAX_ERROR"},
      {"a: &x [*x]", "INVALID_ALIAS"},
      {"a: 1\n---\nb: 2", "SEVERAL_DOCUMENTS"},
      {"? [a]\n: 1", "INVALID_KEY"},
      {": 1", "INVALID_KEY"},
      {"a: !!python/object x", "UNSUPPORTED_TAG"},
      {"a: !include x", "UNSUPPORTED_TAG"},
      {"<<: 5", "INVALID_MERGE"},
      {std::string("a: \0b", 5), "INVALID_TEXT"},
      {"a: \xff\xfe", "INVALID_TEXT"},
      {"a: ${NAME}", "UNKNOWN_SUBSTITUTION"},
      {"a: '${env:'", "UNKNOWN_SUBSTITUTION"},
      {"a: ${file:/no/such/file}", "UNREADABLE_FILE"},
      {std::string(100, '[') + std::string(100, ']'), "DOCUMENT_TOO_DEEP"},
      {std::string(5 << 20, 'a'), "DOCUMENT_TOO_LARGE"},
  };
  for (const auto& [text, reason] : cases) {
    const auto [node, diagnostics] = load(text);
    EXPECT_FALSE(node) << text.substr(0, 50);
    EXPECT_TRUE(diagnostics.has(reason)) << text.substr(0, 50) << "\n" << format_text(diagnostics);
  }
  EXPECT_EQ(load("a: 1\nb: [x\nc: 2\n").diagnostics.items()[0].position.file(), "test.yaml");
}

TEST(Document, ABillionLaughsIsRefusedAtOnce) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 10; ++k) text += (k == 0 ? "" : ", ") + before;
    text += "]\n";
  }
  EXPECT_TRUE(load(text).diagnostics.has("DOCUMENT_TOO_LARGE"));
}

TEST(Document, NonsenseNeverCrashes) {
  const std::string seed =
      "namespaces:\n  - name: x\n    patterns: [a, {type: \"b\", config: &c {d: 1MB}}]\n    e: *c\n    f: |\n      g\n "
      "   <<: *c\n";
  const std::string letters = "[]{}:,-?&*!|>'\"%@`#\n\t ~<ab0${}\xc3\xa9";
  std::mt19937 random(42);
  for (int round = 0; round < 3000; ++round) {
    std::string text = seed;
    const int edits = 1 + static_cast<int>(random() % 12);
    for (int i = 0; i < edits; ++i) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = letters[random() % letters.size()];
          break;
        case 1:
          text.insert(at, 1, letters[random() % letters.size()]);
          break;
        case 2:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 20));
          break;
      }
      if (text.empty()) text = "x";
    }
    const auto [node, diagnostics] = load(text);
    EXPECT_EQ(node.has_value(), !diagnostics.has_errors()) << text;
  }
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 60, ' ');
    for (char& c : text) c = letters[random() % letters.size()];
    load(text);
  }
}

TEST(Document, SubstitutesAndNeverShowsWhatItPutIn) {
  LoadOptions options;
  options.environment = [](const std::string& name) -> std::optional<std::string> {
    if (name == "PORT") return "8980";
    if (name == "PASSWORD") return "hunter2";
    return std::nullopt;
  };
  const auto [node, diagnostics] =
      load("port: ${env:PORT}\nurl: \"u:${env:PASSWORD}@h\"\nplain: $${x} $ {y}\n", options);
  ASSERT_TRUE(node) << format_text(diagnostics);
  EXPECT_EQ(node->find("port")->text(), "8980");
  EXPECT_FALSE(node->find("port")->quoted());
  EXPECT_EQ(node->find("url")->text(), "u:hunter2@h");
  EXPECT_TRUE(node->find("url")->substituted());
  EXPECT_EQ(node->find("url")->display(), "'u:${env:PASSWORD}@h'");
  EXPECT_EQ(node->find("plain")->text(), "${x} $ {y}");
  EXPECT_FALSE(node->find("plain")->substituted());

  const auto missing = load("a:\n  b: ${env:ABSENT}\nc: ${env:GONE}", options);
  EXPECT_FALSE(missing.node);
  ASSERT_EQ(missing.diagnostics.error_count(), 2U);
  EXPECT_EQ(missing.diagnostics.items()[0].reason, "MISSING_VARIABLE");
  EXPECT_EQ(missing.diagnostics.items()[0].path, "a.b");
  EXPECT_EQ(missing.diagnostics.items()[0].position.to_string(), "test.yaml:2:6");
}

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "prism-config-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string file(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name) << content;
    return (path_ / name).string();
  }
  std::string str() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(Document, FilesAreReadRelativeToTheConfiguration) {
  const TempDir dir;
  dir.file("password", "s3cret\n");
  const std::string path = dir.file("prism.yaml", "password: ${file:password}\n");
  Diagnostics diagnostics;
  const auto node = load_file(path, {}, diagnostics);
  ASSERT_TRUE(node) << format_text(diagnostics);
  EXPECT_EQ(node->find("password")->text(), "s3cret");
  EXPECT_FALSE(load_file(dir.str(), {}, diagnostics));
  EXPECT_FALSE(load_file(dir.str() + "/absent", {}, diagnostics));
  EXPECT_EQ(diagnostics.error_count(), 2U);
  EXPECT_TRUE(diagnostics.has("UNREADABLE_FILE"));
}

// ---- diagnostics
// ------------------------------------------------------------------------------------------------------------

TEST(Redaction, FindsSecretsInValues) {
  for (const auto& [value, shown] : std::vector<std::pair<std::string, std::string>>{
           {"postgres://user:hunter2@db:5432/x", "postgres://[redacted]@db:5432/x"},
           {"redis://:hunter2@h:6379", "redis://[redacted]@h:6379"},
           {"nats://hunter2@h", "nats://[redacted]@h"},
           {"amqp://u:hunter2@h/vhost", "amqp://[redacted]@h/vhost"},
           {"postgres://u:hun@ter:2/'x@db", "postgres://[redacted]@db"},
           {"u:hunter2@h:1", "[redacted]@h:1"},
           {"http://h/x?password=hunter2&b=1", "http://h/x?password=[redacted]&b=1"},
           {"http://h/?X-Amz-Signature=hunter2", "http://h/?X-Amz-Signature=[redacted]"},
           {"host=db password=hunter2 user=x", "host=db password=[redacted] user=x"},
           {"host=db password='hun ter2' user=x", "host=db password='[redacted]' user=x"},
           {"password:hunter2", "password:[redacted]"},
           {R"({"token": "hunter2"})", R"({"token": [redacted])"},
           {"authorization: Bearer hunter2", "authorization: [redacted]"},
           {"Bearer hunter2", "Bearer [redacted]"},
           {"-----BEGIN PRIVATE KEY-----\nhunter2", "[redacted]"},
       }) {
    EXPECT_EQ(redacted(value), shown);
    EXPECT_EQ(redacted(redacted(value)), shown);
  }
  for (const std::string harmless :
       {"kafka-1:9092", "me@example.org", "user:{id}:profile", "token:{id}", "postgres://user:${env:PASSWORD}@db",
        "nats://${env:TOKEN}@h", "password=${file:secret.txt}", "http://h:4317/v1?a=b", "a = b", "", "acks=all",
        "password_file=/run/secret"}) {
    EXPECT_EQ(redacted(harmless), harmless);
  }
}

TEST(Redaction, FindsSecretsInSentences) {
  EXPECT_EQ(redacted_words("'postgres://u:hunter2@db' is not an address, and 'redis://:hunter3@h' is none"),
            "'postgres://[redacted]@db' is not an address, and 'redis://[redacted]@h' is none");
  EXPECT_EQ(redacted_words("connect: password=hunter2\n  user=x"), "connect: password=[redacted]\n  user=x");
  const std::string sentence = "password: give one, as ${env:NAME} (me@example.org: '[redacted]@db' was)";
  EXPECT_EQ(redacted_words(sentence), sentence);
}

TEST(Redaction, TakesTimeThatGrowsWithTheTextOnly) {
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += "token:";
  EXPECT_TRUE(secrets_in(text + "{id}").empty());
  EXPECT_EQ(secrets_in(text).size(), 1U);
}

TEST(Redaction, NamesOfSecrets) {
  for (const auto* name : {"password", "sasl_password", "X-Api-Key", "secret_access_key", "client.secret", "token"})
    EXPECT_TRUE(names_a_secret(name)) << name;
  for (const auto* name : {"password_file", "access_key_id", "topic", "path", "author", "passive"})
    EXPECT_FALSE(names_a_secret(name)) << name;
}

TEST(Redaction, CutsAfterItHasRedacted) {
  const std::string value = "postgres://user:" + std::string(100, 'p') + "@db";
  EXPECT_EQ(quotable(value), "postgres://[redacted]@db");
  EXPECT_EQ(quotable(std::string(61, 'x')), std::string(60, 'x') + "...");
  EXPECT_EQ(quotable("a\xE2\x80\xAE"
                     "b"),
            "a\\u202Eb");
}

TEST(Redaction, NoMessageShowsASecretOfTheFile) {
  const auto node = [](const std::string& text) {
    Diagnostics diagnostics;
    return *load_text(text, {}, diagnostics);
  };
  for (const std::string text : {"port: postgres://u:hunter2@db", "port: u:hunter2@db", "'u:hunter2@db': 1",
                                 "port: Bearer hunter2", "password: [hunter2]", "address: 'redis://:hunter2@h:1'",
                                 "size: '?token=hunter2'", "name: 'u:hunter2@h'", "table: 'u:x@hunter2.y:hunter2@h'"}) {
    struct Options {
      int port = 0;
      std::string address, name, table;
      std::uint64_t size = 0;
      Secret password;
    };
    const auto schema = Schema<Options>("test", "A test.")
                            .field(&Options::port, "port", Int{}, "A port.")
                            .field(&Options::size, "size", Size{}, "A size.")
                            .field(&Options::address, "address", Address{}, "An address.")
                            .field(&Options::name, "name", Name(), "A name.")
                            .field(&Options::table, "table", SqlIdentifier{}, "A table.")
                            .field(&Options::password, "password", SecretText{}, "A secret.");
    Diagnostics diagnostics;
    EXPECT_FALSE(schema.parse(node(text), diagnostics)) << text;
    EXPECT_EQ(format_text(diagnostics).find("hunter2"), std::string::npos) << format_text(diagnostics);
    EXPECT_EQ(format_json(diagnostics).find("hunter2"), std::string::npos) << format_json(diagnostics);
  }
}

TEST(Diagnostics, OfManyTheFirstAreShownAndTheRestCounted) {
  const auto file = std::make_shared<const std::string>("f.yaml");
  Diagnostics diagnostics;
  for (int line = 300; line > 0; --line) {
    diagnostics.add({Severity::warning, {file, line, 2}, {}, "W", "w", {}});
    diagnostics.error({file, line, 1}, {}, "E", "e");
  }
  const auto shown = diagnostics.shown();
  ASSERT_EQ(shown.size(), Diagnostics::kShown + 1);
  EXPECT_EQ(shown.front().position.line, 1);
  EXPECT_EQ(shown[99].position.line, 100);
  EXPECT_EQ(shown[99].severity, Severity::error);
  EXPECT_EQ(format_text(shown.back()),
            "f.yaml: error: 200 more errors and 300 more warnings are not shown [TOO_MANY_ERRORS]\n"
            "  hint: mend these first\n");
  EXPECT_THAT(format_text(diagnostics), testing::EndsWith(format_text(shown.back())));
  EXPECT_EQ(diagnostics.sorted().size(), 600U);
  EXPECT_EQ(diagnostics.shown(600).size(), 600U);
  EXPECT_EQ(diagnostics.shown(599).back().message, "1 more warning is not shown");
}

TEST(Diagnostics, AreSortedAndFormatted) {
  Diagnostics diagnostics;
  const auto file = std::make_shared<const std::string>("p.yaml");
  diagnostics.error({file, 9, 1}, "b", "LATER", "later");
  diagnostics.error({file, 3, 7}, "a[0].b", "BAD", "it is \"bad\"", "mend it");
  EXPECT_EQ(format_text(diagnostics),
            "p.yaml:3:7: error: it is \"bad\" [BAD]\n  hint: mend it\np.yaml:9:1: error: later [LATER]\n");
  const auto json = nlohmann::json::parse(format_json(diagnostics));
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json[0]["line"], 3);
  EXPECT_EQ(json[0]["message"], "it is \"bad\"");
  const Error error = diagnostics.to_error();
  EXPECT_EQ(error.reason, "BAD");
  EXPECT_EQ(error.message, "p.yaml:3:7: it is \"bad\" (and 1 more error)");
  EXPECT_EQ(error.metadata.at("field"), "a[0].b");
  EXPECT_EQ(nlohmann::json::parse(format_json(Diagnostics{})).size(), 0U);
}

// ---- schema
// -----------------------------------------------------------------------------------------------------------------

struct Store {
  std::string backend, bucket;
  std::string prefix;
  Lifetime ttl;
};
enum class Mode { polling, cdc };
struct Options {
  std::uint64_t threshold = 0;
  Store storage;
  std::optional<Store> spare;
  bool enabled = false;
  int count = 0;
  std::uint8_t small = 0;
  Mode mode = Mode::cdc;
  std::chrono::milliseconds interval{};
  std::optional<Lifetime> retention;
  std::vector<std::string> groups;
  std::map<std::string, std::uint64_t> sizes;
  Secret password;
  std::optional<std::string> table;
  Node rest;
  std::optional<Node> raw;
};

const Schema<Store>& store_schema() {
  static const auto schema = Schema<Store>("storage", "Where payloads are stored.")
                                 .field(&Store::backend, "backend", Name(), "An object store.")
                                 .required()
                                 .example("s3")
                                 .field(&Store::bucket, "bucket", Name(), "The bucket.")
                                 .default_("prism")
                                 .field(&Store::prefix, "prefix", Text{.allow_empty = true}, "The keys' prefix.")
                                 .default_("\"\"")
                                 .field(&Store::ttl, "ttl", DurationOrInfinite{}, "When objects go.")
                                 .default_("7 days");
  return schema;
}

const Schema<Options>& options_schema() {
  static const auto schema =
      Schema<Options>("sample", "A sample.")
          .field(&Options::threshold, "threshold", Size{.min = 1, .max = 1'000'000'000}, "The largest payload kept.")
          .default_("1MB")
          .field(&Options::storage, "storage", Nested{store_schema()}.shorthand("backend"), "The store.")
          .required()
          .field(&Options::spare, "spare", Nested{store_schema()}, "Another store.")
          .field(&Options::enabled, "enabled", Bool{}, "On.")
          .default_("true")
          .field(&Options::count, "count", Int{.min = 1, .max = 100}, "How many.")
          .default_("10")
          .alias("number")
          .field(&Options::small, "small", Int{}, "A byte.")
          .field(&Options::mode, "mode", Enum<Mode>{{{"polling", Mode::polling}, {"cdc", Mode::cdc}}}, "How.")
          .default_("polling")
          .field(&Options::interval, "interval", Duration{.min = 1ms, .max = 1h}, "How often.")
          .default_("100ms")
          .field(&Options::retention, "retention", DurationOrInfinite{}, "How long.")
          .field(&Options::groups, "groups", ListOf{Name()}, "Names.")
          .field(&Options::sizes, "sizes", MapOf{Size{}}, "Sizes.")
          .field(&Options::password, "password", SecretText{}, "The password.")
          .field(&Options::table, "table", Name(), "The table.")
          .deprecated("'tables'")
          .field(&Options::rest, "rest", Any{}, "Anything.")
          .field(&Options::raw, "raw", Any{}, "Anything or nothing.")
          .spelling("bucket", "storage.bucket")
          .check([](const Options& options, const Node& node, Diagnostics& diagnostics) {
            if (options.count == 13) diagnostics.error(*node.find("count"), "UNLUCKY", "13 is unlucky");
          });
  return schema;
}

struct Parsed {
  std::optional<Options> value;
  Diagnostics diagnostics;
};

Parsed parse(std::string_view text, LoadOptions options = {}) {
  Parsed out;
  options.file_name = "o.yaml";
  const auto node = load_text(text, options, out.diagnostics);
  EXPECT_TRUE(node) << format_text(out.diagnostics);
  if (node) out.value = options_schema().parse(*node, out.diagnostics);
  return out;
}

TEST(Schema, AppliesDefaultsAndTypes) {
  const auto [value, diagnostics] = parse(R"(
storage: {backend: s3, ttl: null}
number: 20
small: 255
mode: CDC
interval: 2s
retention: 86400
groups: [a, "b"]
sizes: {x: 1KiB}
)");
  ASSERT_TRUE(value) << format_text(diagnostics);
  EXPECT_EQ(value->threshold, 1'000'000U);
  EXPECT_EQ(value->storage.bucket, "prism");
  EXPECT_EQ(value->storage.ttl, std::nullopt);
  EXPECT_FALSE(value->spare);
  EXPECT_TRUE(value->enabled);
  EXPECT_EQ(value->count, 20);
  EXPECT_EQ(value->small, 255);
  EXPECT_EQ(value->mode, Mode::cdc);
  EXPECT_EQ(value->interval, 2s);
  EXPECT_EQ(value->retention, std::optional<Lifetime>(Lifetime{24h}));
  EXPECT_THAT(value->groups, testing::ElementsAre("a", "b"));
  EXPECT_EQ(value->sizes.at("x"), 1024U);
  EXPECT_TRUE(diagnostics.empty());

  const auto given_null = parse("storage: s3\nretention: null\n");
  ASSERT_TRUE(given_null.value);
  EXPECT_EQ(given_null.value->storage.ttl, Lifetime{168h});
  ASSERT_TRUE(given_null.value->retention.has_value());
  EXPECT_FALSE(given_null.value->retention->has_value());
  EXPECT_FALSE(parse("storage: s3").value->retention.has_value());
  EXPECT_FALSE(parse("storage: s3").value->raw.has_value());
  EXPECT_TRUE(parse("storage: s3\nraw: null").value->raw.has_value());
}

// proves: F-16
TEST(Schema, ShorthandAndSpellingsMeanTheSame) {
  for (const std::string text : {"storage: s3\nbucket: videos", "storage: {backend: s3, bucket: videos}",
                                 "storage: {backend: s3}\nbucket: videos", "bucket: videos\nstorage: s3"}) {
    const auto [value, diagnostics] = parse(text);
    ASSERT_TRUE(value) << text << format_text(diagnostics);
    EXPECT_EQ(value->storage.backend, "s3");
    EXPECT_EQ(value->storage.bucket, "videos");
  }
  const auto both = parse("storage: {backend: s3, bucket: a}\nbucket: b");
  EXPECT_FALSE(both.value);
  EXPECT_EQ(
      format_text(both.diagnostics),
      "o.yaml:2:1: error: 'bucket' means the same as 'storage.bucket', which is given in line 1 [DUPLICATE_OPTION]\n"
      "  hint: keep one of them\n");
  const auto alone = parse("bucket: b");
  EXPECT_FALSE(alone.value);
  ASSERT_TRUE(alone.diagnostics.has("MISSING_OPTION")) << format_text(alone.diagnostics);
  EXPECT_EQ(alone.diagnostics.items()[0].path, "storage.backend");
}

TEST(Schema, ReportsEveryMistakeAtItsPlace) {
  const auto [value, diagnostics] = parse(R"(threshhold: 1MB
storage:
  backend: s3
  ttl: soon
  wrong: 1
enabled: yes
count: 101
number: 3
small: 256
mode: poling
interval: [1]
groups: a
sizes: {x: 1MX}
)");
  EXPECT_FALSE(value);
  EXPECT_EQ(format_text(diagnostics),
            R"(o.yaml:1:1: error: unknown option 'threshhold' in sample [UNKNOWN_OPTION]
  hint: did you mean 'threshold'?
o.yaml:4:8: error: 'soon' is not a duration: it must begin with a number [INVALID_DURATION]
  hint: write a number with a unit, for example 100ms, 60s, 15m, 24h or 30 days; a bare number is seconds
o.yaml:5:3: error: unknown option 'wrong' in storage [UNKNOWN_OPTION]
  hint: known here: backend, bucket, prefix, ttl
o.yaml:6:10: error: expected true or false, but this is 'yes' [WRONG_TYPE]
  hint: write true
o.yaml:7:8: error: '101' is out of range: it must be between 1 and 100 [OUT_OF_RANGE]
o.yaml:8:1: error: 'number' means the same as 'count', which is given in line 7 [DUPLICATE_OPTION]
  hint: keep one of them
o.yaml:9:8: error: '256' is out of range: it must be between 0 and 255 [OUT_OF_RANGE]
o.yaml:10:7: error: 'poling' is not one of polling, cdc [INVALID_VALUE]
  hint: did you mean 'polling'?
o.yaml:11:11: error: expected a duration such as 100ms, but this is a list [WRONG_TYPE]
  hint: write the value without a list
o.yaml:12:9: error: expected a list, but this is 'a' [WRONG_TYPE]
  hint: write it as a list: [a]
o.yaml:13:12: error: '1MX' is not a size: the unit 'MX' is unknown [INVALID_SIZE]
  hint: write a number with a unit, for example 500kB, 1MB, 8MiB or 5GB; a bare number is bytes
)");
}

TEST(Schema, MissingDeprecatedAndChecks) {
  const auto missing = parse("count: 1");
  EXPECT_FALSE(missing.value);
  ASSERT_EQ(missing.diagnostics.items().size(), 1U);
  EXPECT_EQ(missing.diagnostics.items()[0].reason, "MISSING_OPTION");
  EXPECT_EQ(missing.diagnostics.items()[0].path, "storage");

  const auto old = parse("storage: s3\ntable: t");
  EXPECT_TRUE(old.value);
  EXPECT_TRUE(old.diagnostics.has("DEPRECATED_OPTION"));
  EXPECT_FALSE(old.diagnostics.has_errors());

  EXPECT_TRUE(parse("storage: s3\ncount: 13").diagnostics.has("UNLUCKY"));
  EXPECT_TRUE(parse("[1, 2]").diagnostics.has("WRONG_TYPE"));
  EXPECT_TRUE(parse("storage: s3\ninterval: 1us").diagnostics.has("OUT_OF_RANGE"));
  EXPECT_TRUE(parse("storage: s3\ninterval: 1500us").diagnostics.has("INVALID_DURATION"));
  EXPECT_TRUE(parse("storage: s3\ninterval: infinite").diagnostics.has("OUT_OF_RANGE"));
  EXPECT_TRUE(parse("storage: s3\ntable: a b").diagnostics.has("INVALID_VALUE"));
  EXPECT_TRUE(parse("storage: s3\ncount: 1.5").diagnostics.has("INVALID_NUMBER"));
  EXPECT_TRUE(parse("storage: s3\ncount: 99999999999999999999").diagnostics.has("OUT_OF_RANGE"));
}

TEST(Schema, WhatIsQuotedStaysOneLineOfWholeCharacters) {
  const auto broken = parse("storage: s3\n\"first\\nsecond\": 1");
  ASSERT_FALSE(broken.diagnostics.items().empty());
  EXPECT_EQ(broken.diagnostics.items()[0].message, "unknown option 'first second' in sample");
  const auto cut = parse("storage: s3\n" + std::string(59, 'a') + "\u00e4: 1");
  ASSERT_FALSE(cut.diagnostics.items().empty());
  EXPECT_THAT(cut.diagnostics.items()[0].message, HasSubstr("aaa\u00e4'"));
  const auto longer = parse("storage: s3\n" + std::string(59, 'a') + "\u00e4\u00e4: 1");
  EXPECT_THAT(longer.diagnostics.items()[0].message, HasSubstr("aaa\u00e4...'"));
}

TEST(Schema, SecretsAreNeverPrinted) {
  LoadOptions options;
  options.environment = [](const std::string&) { return std::optional<std::string>("hunter2"); };
  const auto good = parse("storage: s3\npassword: ${env:PW}", options);
  ASSERT_TRUE(good.value);
  EXPECT_EQ(good.value->password.reveal(), "hunter2");
  EXPECT_TRUE(good.diagnostics.empty());
  std::ostringstream shown;
  shown << good.value->password;
  EXPECT_EQ(shown.str(), "[redacted]");
  EXPECT_EQ(fmt::format("{}", good.value->password), "[redacted]");

  const auto plain = parse("storage: s3\npassword: hunter2");
  EXPECT_TRUE(plain.value);
  EXPECT_TRUE(plain.diagnostics.has("PLAIN_SECRET"));
  EXPECT_THAT(format_text(plain.diagnostics), Not(HasSubstr("hunter2")));

  // Put into an option of any other type, the value does not show in the error either.
  for (const std::string key : {"threshold", "interval", "count", "mode", "enabled", "retention"}) {
    const auto wrong = parse("storage: s3\n" + key + ": ${env:PW}", options);
    EXPECT_FALSE(wrong.value) << key;
    EXPECT_THAT(format_text(wrong.diagnostics), Not(HasSubstr("hunter2"))) << key;
    EXPECT_THAT(format_text(wrong.diagnostics), HasSubstr("${env:PW}")) << key;
  }
}

TEST(Schema, DescribesItself) {
  const SchemaInfo& info = options_schema().info();
  ASSERT_NE(info.find("threshold"), nullptr);
  EXPECT_EQ(info.find("threshold")->default_text, "1MB");
  EXPECT_EQ(info.find("threshold")->type.max, "1GB");
  EXPECT_EQ(info.find("number"), info.find("count"));
  EXPECT_TRUE(info.find("password")->secret);
  EXPECT_EQ(info.find("storage")->type.object->fields.size(), 4U);

  const auto json = json_schema(info);
  EXPECT_EQ(json["properties"]["count"]["maximum"], 100);
  EXPECT_EQ(json["properties"]["number"]["maximum"], 100);
  EXPECT_EQ(json["properties"]["mode"]["anyOf"][0]["enum"][0], "polling");
  EXPECT_EQ(json["properties"]["password"]["writeOnly"], true);
  EXPECT_EQ(json["properties"]["storage"]["anyOf"][1]["properties"]["bucket"]["default"], "prism");
  EXPECT_EQ(json["properties"]["bucket"]["default"], "prism");
  EXPECT_EQ(json["properties"]["threshold"]["default"], "1MB");
  EXPECT_EQ(json["properties"]["threshold"]["maximum"], 1'000'000'000);
  EXPECT_EQ(json["additionalProperties"], false);
}

TEST(SchemaDeathTest, ContradictionsAbort) {
  EXPECT_DEATH(Schema<Options>("x", "").field(&Options::threshold, "t", Size{}, "").default_("many"),
               "default does not parse");
  EXPECT_DEATH(Schema<Options>("x", "").field(&Options::count, "n", Int{}, "").field(&Options::small, "n", Int{}, ""),
               "twice");
  EXPECT_DEATH(Schema<Options>("x", "").field(&Options::count, "n", Int{}, "").spelling("m", "n.x"), "not an object");
}

// ---- placeholders and identifiers
// ----------------------------------------------------------------------------------------------

Node scalar_of(const std::string& text) { return Node::make_scalar(text, Node()); }

TEST(Template, PartsAndFields) {
  using Part = Template::Part;
  const auto parts = [](std::string_view text) { return parse_template(text).value().parts; };
  EXPECT_EQ(parts("user:{after.id}:profile"),
            (std::vector<Part>{{false, "user:"}, {true, "after.id"}, {false, ":profile"}}));
  EXPECT_EQ(parts("{event_type}"), (std::vector<Part>{{true, "event_type"}}));
  EXPECT_EQ(parts("plain"), (std::vector<Part>{{false, "plain"}}));
  EXPECT_TRUE(parts("").empty());
  for (const std::string text :
       {"{", "}", "a{b", "a}b", "{}", "{{id}}", "{a b}", "{a{b}}", "{.a}", "{a.}", "{a..b}", "{1}", "${id", "{a-b}"}) {
    const auto parsed = parse_template(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().reason, "INVALID_PLACEHOLDER") << text;
  }
  EXPECT_FALSE(parse_template(std::string(2000, 'a')));
}

TEST(Template, FieldsMustBeKnown) {
  const TemplateText kind{.fields = {"event_type", "after."}, .literal = "[a-z:.]*", .expects = "lower-case letters"};
  const auto reason = [&](const std::string& text) {
    Template out;
    Diagnostics diagnostics;
    const bool good = kind.parse(scalar_of(text), out, diagnostics);
    EXPECT_EQ(good, diagnostics.empty()) << text;
    return good ? std::string() : diagnostics.items()[0].reason + " " + diagnostics.items()[0].hint;
  };
  EXPECT_EQ(reason("a:{event_type}.{after.id}"), "");
  EXPECT_EQ(reason("{event_typ}"), "UNKNOWN_PLACEHOLDER did you mean {event_type}?");
  EXPECT_EQ(reason("{before.id}"), "UNKNOWN_PLACEHOLDER there are {event_type}, {after....}");
  EXPECT_EQ(reason("{after.}"),
            "INVALID_PLACEHOLDER a field is letters, digits, '_' and '.', for example {id} or {after.id}");
  EXPECT_EQ(reason("A{event_type}").substr(0, 13), "INVALID_VALUE");
}

TEST(SqlIdentifiers, WhatIsNoneIsRefusedAndWhatNeedsQuotesIsSaid) {
  const auto check = [](const std::string& text) {
    std::string out;
    Diagnostics diagnostics;
    const bool good = SqlIdentifier{}.parse(scalar_of(text), out, diagnostics);
    EXPECT_EQ(good, !diagnostics.has_errors()) << text;
    if (good) EXPECT_EQ(out, text);
    return diagnostics.empty() ? std::string() : diagnostics.items()[0].reason + " " + diagnostics.items()[0].hint;
  };
  for (const std::string text : {"outbox", "_x", "model_outbox_2", "o"}) EXPECT_EQ(check(text), "") << text;
  EXPECT_EQ(check(std::string(63, 'a')), "");
  EXPECT_EQ(check("my-outbox"), "INVALID_SQL_IDENTIFIER did you mean 'my_outbox'?");
  EXPECT_EQ(check("public.outbox"), "INVALID_SQL_IDENTIFIER name the table without its schema: 'outbox'");
  for (const std::string text :
       {"", "1st", "a b;--", "x\"; DROP TABLE y; --", "sqlite_master", "SQLite_x", "\xc3\xa9t\xc3\xa9", "a'b", "$1"}) {
    EXPECT_THAT(check(text), testing::StartsWith("INVALID_SQL_IDENTIFIER")) << text;
  }
  EXPECT_THAT(check(std::string(64, 'a')), testing::StartsWith("INVALID_SQL_IDENTIFIER"));
  EXPECT_EQ(check("Outbox"), "IDENTIFIER_NEEDS_QUOTES name it outbox");
  EXPECT_EQ(check("order"), "IDENTIFIER_NEEDS_QUOTES ");
}

TEST(Addresses, HostAndPort) {
  const auto check = [](const std::string& text, bool need_host = false) {
    std::string out;
    Diagnostics diagnostics;
    Address{.need_host = need_host}.parse(scalar_of(text), out, diagnostics);
    return diagnostics.empty() ? std::string() : diagnostics.items()[0].reason + " " + diagnostics.items()[0].hint;
  };
  for (const std::string text : {":8980", "0.0.0.0:0", "kafka-1:9092", "[::1]:65535", "*:1"}) {
    if (text != "*:1") EXPECT_EQ(check(text), "") << text;
  }
  EXPECT_EQ(check(":8980", true), "INVALID_VALUE ");
  EXPECT_EQ(check("8980"), "INVALID_VALUE write \":8980\"");
  EXPECT_EQ(check("localhost"), "INVALID_VALUE the port is missing");
  EXPECT_EQ(check("http://a:1"), "INVALID_VALUE leave out http://");
  EXPECT_EQ(check("a:1,b:2", true), "INVALID_VALUE one address only; a list is written [a:1, b:2]");
  EXPECT_EQ(check("a:65536"), "OUT_OF_RANGE ");
}

TEST(Document, GoesOnBehindMistakesOfSingleValues) {
  LoadOptions options;
  options.keep_going = true;
  options.environment = [](const std::string&) { return std::optional<std::string>(); };
  const auto [node, diagnostics] = load("a: 1\na: 2\nb: ${env:X}\nc: 3\n", options);
  ASSERT_TRUE(node);
  EXPECT_EQ(diagnostics.error_count(), 2U);
  EXPECT_EQ(node->find("a")->text(), "1");
  EXPECT_TRUE(node->find("b")->broken());
  EXPECT_FALSE(node->find("c")->broken());
  EXPECT_FALSE(load("a: 1\na: [", options).node);
  std::int64_t number = 0;
  Diagnostics quiet;
  EXPECT_FALSE(Int{}.parse(*node->find("b"), number, quiet));
  EXPECT_TRUE(quiet.empty());
}

}  // namespace
}  // namespace prism::config
