// Differences between configurations.
#include "namespaces/change.h"

#include <gtest/gtest.h>

#include "namespaces/parse.h"

namespace prism {
namespace {

FileSpec parse(const std::string& yaml,
               std::function<std::optional<std::string>(const std::string&)> environment = {}) {
  config::LoadOptions options;
  if (environment) options.environment = std::move(environment);
  auto parsed = parse_text(yaml, components(), options);
  EXPECT_TRUE(parsed.ok()) << config::format_text(parsed.diagnostics);
  return std::move(parsed.file);
}

std::string changes(const std::string& from, const std::string& to) {
  return format_text(compare(parse(from), parse(to), components()));
}

std::string outbox(const std::string& options) {
  return "namespaces: [{name: a, patterns: [{type: outbox, " + options + "}], backend: kafka}]";
}

// proves: R-70
TEST(Change, SpellingsAndDefaultsAreNoDifference) {
  const std::string plain = outbox("database: postgres");
  EXPECT_EQ(changes(plain, plain), "");
  EXPECT_EQ(changes(plain, outbox("config: {database: {backend: postgres}}")), "");
  EXPECT_EQ(changes(plain, outbox("database: postgres, table: outbox, publisher: {interval: 0.1s, batch_size: 1000}")),
            "");
  EXPECT_EQ(
      changes("namespaces: [{name: a, patterns: [{type: claim-check, threshold: 1MB, storage: s3, bucket: b}], "
              "backend: kafka}]",
              "namespaces: [{name: a, pattern: claim-check, claim_check: {threshold: 1000000, storage: {bucket: b, "
              "backend: s3}}, backend: {type: kafka}}]"),
      "");
}

// proves: R-70
TEST(Change, EachOptionIsToldWithWhatItWas) {
  EXPECT_EQ(changes(outbox("database: postgres"), outbox("database: postgres, publisher: {interval: 1s}")),
            "~ namespace a\n    ~ outbox.publisher.interval: 100ms -> 1s\n");
  EXPECT_EQ(changes("namespaces: [{name: a, backend: kafka}]",
                    "namespaces: [{name: a, backend: {type: kafka, topic: t}}, {name: b, backend: nats}]"),
            "~ namespace a\n    + backend.topic: t\n+ namespace b\n    + backend: nats\n");
  EXPECT_EQ(changes("namespaces: [{name: a, backend: kafka}, {name: b, backend: nats}]",
                    "namespaces: [{name: a, backend: kafka}]"),
            "- namespace b\n    - backend: nats\n");
  EXPECT_EQ(changes("namespaces: [{name: a, backend: kafka}]",
                    "server: {listen: '127.0.0.1:1'}\nnamespaces: [{name: a, backend: kafka}]"),
            "~ server  (takes effect when the server is started again)\n    + listen: 127.0.0.1:1\n");
}

// proves: R-70
TEST(Change, WhatComesFromTheEnvironmentIsTellingByNameOnly) {
  const std::string yaml =
      "backends: {db: {type: sqlite, path: '${env:SECRET}'}}\nnamespaces: [{name: a, backend: db}]";
  const auto with = [&](const std::string& value) {
    return parse(yaml, [value](const std::string&) { return value; });
  };
  EXPECT_TRUE(compare(with("/one"), with("/one"), components()).empty());
  const auto changed = format_text(compare(with("/one"), with("/two"), components()));
  EXPECT_NE(changed.find("${env:SECRET}"), std::string::npos) << changed;
  EXPECT_EQ(changed.find("/one"), std::string::npos) << changed;
  EXPECT_EQ(changed.find("/two"), std::string::npos) << changed;
}

// proves: R-70
TEST(Change, SecretsInsideOfOtherOptionsAreNotTold) {
  const auto with = [](const std::string& token) {
    return "backends: {db: {type: sqlite, path: '/data/x?token=" + token + "'}}\nnamespaces: [{name: a, backend: db}]";
  };
  const auto changed = changes(with("hush1"), with("hush2"));
  EXPECT_NE(changed.find("/data/x"), std::string::npos) << changed;
  EXPECT_NE(changed.find("(another value)"), std::string::npos) << changed;
  EXPECT_EQ(changed.find("hush"), std::string::npos) << changed;
}

}  // namespace
}  // namespace prism
