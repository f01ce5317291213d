#include "namespaces/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/yaml_text.h"
#include "namespaces/parse.h"
#include "namespaces/summary.h"

namespace prism {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

struct Made {
  std::optional<Plan> plan;
  config::Diagnostics diagnostics;
};

// The plan of {name: video, ...} with these requirements; `beside` are further keys of the namespace.
Made plan(const std::string& requirements, const std::string& beside = "", const std::string& backends = "{}") {
  Made out;
  const std::string text = "backends: " + backends + "\nnamespaces: [{name: video, requirements: {" + requirements +
                           "}" + (beside.empty() ? "" : ", " + beside) + "}]";
  const auto root = config::load_text(text, {}, out.diagnostics);
  EXPECT_TRUE(root) << format_text(out.diagnostics);
  if (!root) return out;
  std::vector<BackendSpec> specs;
  for (const auto& entry : root->find("backends")->entries()) {
    specs.push_back({entry.key, entry.value.text(), config::Node(), entry.key_position});
  }
  out.plan = plan_namespace(root->find("namespaces")->items()[0], specs, components(), out.diagnostics);
  return out;
}

std::string yaml(const Made& made) { return made.plan ? format_yaml(made.plan->derived) : "no plan"; }

const Decision* decision(const Made& made, std::string_view part) {
  if (!made.plan) return nullptr;
  const auto found = std::ranges::find(made.plan->decisions, part, &Decision::part);
  return found == made.plan->decisions.end() ? nullptr : &*found;
}

// proves: G-04, G-05, G-06, G-07, G-08
TEST(Planner, TheExampleOfTheRfc) {
  const auto made = plan("message_size: 5GB, consistency: strong, retention: 30 days, throughput: 10k msgs/s");
  EXPECT_EQ(yaml(made), R"(name: video
client_api: pubsub
patterns:
  - type: outbox
    database: postgres
    table: video_outbox
  - type: claim-check
    threshold: 1MB
    storage: s3
    cleanup:
      strategy: retention
      retention: 30d
  - type: tiered-storage
    tiers:
      cold:
        backend: s3
        ttl: 30d
backend:
  type: kafka
  partitions: 20
)");
  for (const auto& each : made.plan->decisions) {
    EXPECT_FALSE(each.because.empty()) << each.part;
    EXPECT_FALSE(each.rejected.empty()) << each.part;
  }
  EXPECT_EQ(decision(made, "partitions")->requirement, "throughput");
  EXPECT_EQ(decision(made, "outbox")->requirement, "consistency");
  EXPECT_EQ(decision(made, "claim-check")->requirement, "message_size");
  EXPECT_EQ(decision(made, "tiered-storage")->requirement, "retention");
}

// proves: G-05 (a payload that fits needs no claim check)
TEST(Planner, WhatIsNotNeededIsNotAddedAndSaysWhy) {
  const auto made = plan("message_size: 1MB, consistency: eventual, retention: 7 days, throughput: 1/s");
  EXPECT_EQ(yaml(made), "name: video\nclient_api: pubsub\nbackend:\n  type: kafka\n  partitions: 1\n");
  EXPECT_EQ(decision(made, "claim-check")->chosen, "no");
  EXPECT_EQ(decision(made, "outbox")->chosen, "no");
  EXPECT_EQ(decision(made, "tiered-storage")->chosen, "no");
  EXPECT_THAT(decision(made, "tiered-storage")->because, HasSubstr("7d"));
  // A log that keeps messages without end needs no tiers.
  EXPECT_THAT(yaml(plan("retention: 90 days", "backend: sqlite")), Not(HasSubstr("tiered")));
  EXPECT_THAT(yaml(plan("retention: infinite")), HasSubstr("ttl: infinite"));
}

// proves: G-08 (R-39)
TEST(Planner, PartitionsFollowFromTheThroughput) {
  for (const auto& [requirements, partitions] : std::vector<std::pair<std::string, std::string>>{
           {"throughput: 10k msgs/s", "20"},
           {"throughput: 10001/s", "21"},
           {"throughput: 499/s", "1"},
           {"throughput: 30k/min", "1"},
           {"throughput: 10k msgs/s, throughput_per_partition: 1k/s", "10"}}) {
    const auto made = plan(requirements);
    ASSERT_NE(decision(made, "partitions"), nullptr) << requirements;
    EXPECT_EQ(decision(made, "partitions")->chosen, partitions) << requirements;
  }
  EXPECT_EQ(decision(plan("order: per_key"), "partitions"), nullptr);
}

TEST(Planner, ConfiguredBackendsAreUsed) {
  const auto made = plan("message_size: 5GB, consistency: strong", "", "{files: filesystem, main: sqlite}");
  EXPECT_THAT(yaml(made), HasSubstr("type: main"));
  EXPECT_THAT(yaml(made), HasSubstr("database: main"));
  EXPECT_THAT(yaml(made), HasSubstr("storage: files"));
  EXPECT_THAT(yaml(plan("order: per_key", "", "{a: sqlite, k: kafka}")), HasSubstr("type: k\n"));
}

TEST(Planner, WhatTheNamespaceSaysItselfStays) {
  const auto made = plan("message_size: 5GB, consistency: strong, throughput: 10k/s, durability: disk",
                         "client_api: queue, backend: {type: nats, topic: t, partitions: 50}, state: postgres, "
                         "outbox: {table: mine}, claim_check: {threshold: 5MB}");
  const std::string text = yaml(made);
  EXPECT_THAT(text, HasSubstr("client_api: queue"));
  EXPECT_THAT(text, HasSubstr("  type: nats\n  topic: t\n  partitions: 50\n  replication: 3\n"));
  EXPECT_THAT(text, HasSubstr("state: postgres"));
  EXPECT_THAT(text, Not(HasSubstr("video_outbox")));
  EXPECT_THAT(text, Not(HasSubstr("1MB")));
  EXPECT_THAT(text, HasSubstr("table: mine"));
}

TEST(Planner, LatencyOrderAndDurability) {
  const auto made = plan("latency: 50ms, consistency: strong, order: per_key, durability: host");
  EXPECT_THAT(yaml(made), HasSubstr("interval: 25ms"));
  EXPECT_THAT(yaml(made), HasSubstr("replication: 3"));
  EXPECT_FALSE(made.diagnostics.has_errors());
  EXPECT_EQ(decision(made, "order")->chosen, "per_key");
  EXPECT_TRUE(plan("latency: 2ms, consistency: strong").diagnostics.has("REQUIREMENT_AT_RISK"));
  EXPECT_TRUE(plan("latency: 2ms, message_size: 5GB").diagnostics.has("REQUIREMENT_AT_RISK"));
  EXPECT_TRUE(plan("durability: disk, consistency: strong").diagnostics.has("REQUIREMENT_AT_RISK"));
  EXPECT_THAT(yaml(plan("durability: process")), Not(HasSubstr("replication")));
}

TEST(Planner, WhatCannotBeHadIsRefusedAtItsPlace) {
  const std::vector<std::pair<Made, std::string>> cases = {
      {plan("order: total"), "REQUIREMENTS_UNSATISFIABLE"},
      {plan("durability: disk", "backend: sqlite"), "REQUIREMENTS_UNSATISFIABLE"},
      {plan("throughput: 1G/s"), "REQUIREMENTS_UNSATISFIABLE"},
      {plan("consistency: strong", "client_api: reader"), "REQUIREMENTS_UNSATISFIABLE"},
      {plan("consistency: strong", "patterns: [outbox]"), "CONTRADICTING_OPTIONS"},
      {plan("consistency: very"), "INVALID_VALUE"},
      {plan("mesage_size: 5GB"), "UNKNOWN_OPTION"},
      {plan("throughput: fast"), "INVALID_RATE"},
      {plan("retention: 3 parsecs"), "INVALID_DURATION"},
  };
  for (const auto& [made, reason] : cases) {
    EXPECT_FALSE(made.plan) << reason;
    EXPECT_TRUE(made.diagnostics.has(reason)) << format_text(made.diagnostics);
    for (const auto& item : made.diagnostics.items()) EXPECT_GT(item.position.line, 0);
  }
}

TEST(Planner, EstimatesWithReasonableNumbers) {
  const auto made = plan("message_size: 5GB, typical_size: 200kB, throughput: 1000/s, durability: disk");
  const Estimate& estimate = made.plan->estimate;
  EXPECT_EQ(estimate.partitions, 2U);
  EXPECT_FALSE(estimate.upper_bound);
  ASSERT_FALSE(estimate.stores.empty());
  EXPECT_EQ(estimate.stores[0].backend, "kafka");
  EXPECT_DOUBLE_EQ(estimate.stores[0].bytes, 1000.0 * 200'000 * 7 * 86'400 * 3);
  EXPECT_THAT(estimate.cost_drivers, Contains(HasSubstr("363 TB of records in kafka (kept for 7d")));
  const auto large = plan("message_size: 5GB, throughput: 10/s, retention: 1 day");
  EXPECT_TRUE(large.plan->estimate.upper_bound);
  EXPECT_THAT(large.plan->estimate.cost_drivers, Contains(HasSubstr("30.2 PB of payloads in s3")));
  EXPECT_THAT(format_text(*plan("order: per_key").plan), HasSubstr("give `throughput`"));
}

// proves: G-05
TEST(Planner, TheUsualSizeAloneAsksForAClaimCheckToo) {
  const auto made = plan("typical_size: 5MB, throughput: 1/s");
  EXPECT_EQ(decision(made, "claim-check")->requirement, "typical_size");
  EXPECT_THAT(yaml(made), HasSubstr("type: claim-check"));
  EXPECT_TRUE(plan("message_size: 1MB, typical_size: 5GB").diagnostics.has("CONTRADICTING_OPTIONS"));
  EXPECT_TRUE(plan("message_size: 5MB, typical_size: 5MB").plan);
}

TEST(Planner, APayloadIsNoLargerThanTheStoreTakes) {
  EXPECT_TRUE(plan("message_size: 5TiB").plan);
  EXPECT_TRUE(plan("message_size: 6TiB").diagnostics.has("REQUIREMENTS_UNSATISFIABLE"));
  EXPECT_TRUE(plan("message_size: 6TiB", "", "{files: filesystem}").plan);
  EXPECT_TRUE(plan("message_size: 6TiB", "claim_check: {storage: files}", "{files: filesystem, s: s3}").plan);
  EXPECT_TRUE(plan("message_size: 1PB", "", "{files: filesystem}").diagnostics.has("REQUIREMENTS_UNSATISFIABLE"));
}

TEST(Planner, NothingIsEstimatedOfAnUnknownSize) {
  const std::string text = format_text(*plan("throughput: 1/s").plan);
  EXPECT_THAT(text, HasSubstr("estimate at 1 message a second: how much that stores is not known without"));
  EXPECT_THAT(text, Not(HasSubstr("0 B")));
  const std::string known = format_text(*plan("throughput: 10k/s, typical_size: 1kB").plan);
  EXPECT_THAT(known, HasSubstr("of 1kB, 864 GB a day"));
  EXPECT_THAT(known, HasSubstr("of records in kafka (kept for 7d)"));
  EXPECT_THAT(format_text(*plan("throughput: 1/s, typical_size: 1kB, retention: infinite", "backend: nats").plan),
              HasSubstr("31.5 GB of records in nats (kept for ever, of which this is a year)"));
}

TEST(Planner, EveryDerivedLineHasItsReason) {
  const auto made = plan("message_size: 5GB, consistency: strong, retention: 3 days, latency: 30ms, throughput: 1k/s");
  ASSERT_TRUE(made.plan);
  for (const auto* path : {"client_api", "patterns[0]", "patterns[0].database", "patterns[0].table",
                           "patterns[0].publisher", "patterns[1]", "patterns[1].threshold", "patterns[1].storage",
                           "patterns[1].cleanup", "backend", "backend.partitions"}) {
    const auto found = made.plan->comments.find(path);
    ASSERT_NE(found, made.plan->comments.end()) << path;
    EXPECT_FALSE(found->second.empty()) << path;
  }
  EXPECT_THAT(made.plan->comments.at("patterns[1].cleanup"),
              HasSubstr("readable for 3d, and kafka keeps the records that refer to them for 7d"));
  EXPECT_EQ(decision(made, "cleanup")->chosen, "after 7d");
}

TEST(Planner, BytesForPeople) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1500), "1.5 kB");
  EXPECT_EQ(format_bytes(1.296e20), "130 EB");
}

// The derived file, with its comments, is a file that means the same.
// proves: G-04
TEST(Planner, TheDerivedFileReadsBackAsTheSameNamespace) {
  const std::string requirements =
      "namespaces: [{name: video, requirements: {message_size: 5GB, consistency: strong, retention: 3 days, "
      "throughput: 10k msgs/s, latency: 30ms}}]";
  const auto direct = parse_text(requirements, components());
  ASSERT_TRUE(direct.ok()) << format_text(direct.diagnostics);
  config::Diagnostics diagnostics;
  const auto root = config::load_text(requirements, {}, diagnostics);
  const auto made = plan_namespace(root->find("namespaces")->items()[0], {}, components(), diagnostics);
  ASSERT_TRUE(made);
  std::map<std::string, std::string> comments = {{"namespaces[0]", format_text(*made)}};
  for (const auto& [below, reason] : made->comments) comments["namespaces[0]." + below] = reason;
  const auto& position = root->position();
  const auto file =
      config::Node::make_map({{"namespaces", position, config::Node::make_list({made->derived}, *root)}}, *root);
  const auto again = parse_text(format_yaml(file, comments), components());
  ASSERT_TRUE(again.ok()) << format_yaml(file, comments) << format_text(again.diagnostics);
  EXPECT_EQ(format_text(summarize(direct.file, direct.file.namespaces[0], components(), false)),
            format_text(summarize(again.file, again.file.namespaces[0], components(), false)));
  EXPECT_EQ(options_of(direct.file.namespaces[0], components()), options_of(again.file.namespaces[0], components()));
}

// proves: G-07 (as long as tiered-storage is not built)
TEST(Planner, APatternThatIsNotBuiltIsSaidAtItsRequirement) {
  const auto parsed =
      parse_text("namespaces:\n  - name: video\n    requirements:\n      retention: 30 days\n", components());
  ASSERT_EQ(parsed.diagnostics.error_count(), 1U) << format_text(parsed.diagnostics);
  EXPECT_EQ(parsed.diagnostics.items()[0].reason, "PATTERN_NOT_AVAILABLE");
  EXPECT_EQ(parsed.diagnostics.items()[0].position.line, 4);
}

// A plan gives no cause for warnings of its own.
TEST(Planner, PayloadsOutliveTheRecordsThatReferToThem) {
  const auto parsed =
      parse_text("namespaces: [{name: video, requirements: {message_size: 5GB, retention: 3 days}}]", components());
  EXPECT_THAT(parsed.diagnostics.items(), testing::IsEmpty()) << format_text(parsed.diagnostics);
}

// ---- the YAML that is written

TEST(YamlText, ReadsBackAsItWas) {
  for (const std::string text : {
           "a: 1\nb: \"1\"\nc: text with spaces\nd: \"yes\"\ne: yes\n",
           "a: []\nb: {}\nc:\nd: \"\"\n",
           "list:\n  - a\n  - b: 1\n    c: 2\n  - - x\n    - y\n  - null\n",
           "a: \"line\\nbreak \\\"quoted\\\" # no comment\"\n\"key: odd\": 1\n",
           "secret: ${env:HOME}\nliteral: $${not}\n",
           "a: access_count > 10 AND tier == hot\nb: -5\nc: 10k msgs/s\nd: \"{event_type}\"\n",
       }) {
    config::Diagnostics diagnostics;
    const auto first = config::load_text(text, {}, diagnostics);
    ASSERT_TRUE(first) << text << format_text(diagnostics);
    const std::string written = format_yaml(*first, {{"a", "a comment\nof two lines"}});
    const auto second = config::load_text(written, {}, diagnostics);
    ASSERT_TRUE(second) << written << format_text(diagnostics);
    EXPECT_EQ(format_json(*first), format_json(*second)) << written;
  }
  config::Diagnostics diagnostics;
  config::LoadOptions options;
  options.environment = [](const std::string&) { return "hunter2"; };
  const auto secret = config::load_text("password: ${env:PASSWORD}\n", options, diagnostics);
  ASSERT_TRUE(secret);
  EXPECT_THAT(format_yaml(*secret), HasSubstr("${env:PASSWORD}"));
  EXPECT_THAT(format_yaml(*secret) + format_json(*secret), Not(HasSubstr("hunter2")));
}

}  // namespace
}  // namespace prism
