#include "namespaces/guarantees.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "namespaces/parse.h"
#include "namespaces/summary.h"

namespace prism {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Guarantees promised(const std::string& body, bool embedded = false, const std::string& backends = "{}") {
  const auto parsed = parse_text("backends: " + backends + "\nnamespaces: [{name: a, " + body + "}]", components());
  EXPECT_TRUE(parsed.ok()) << format_text(parsed.diagnostics);
  const Catalogue catalogue(components());
  if (parsed.file.namespaces.empty()) return {};
  return promise(parsed.file, parsed.file.namespaces[0], components(), catalogue, embedded).guarantees;
}

std::string durability(const Guarantees& given) {
  std::string out;
  for (const auto& [step, why] : given.durability) out += step + ": " + why + "\n";
  return out;
}

TEST(Guarantees, OfABareLog) {
  const auto given = promised("backend: kafka");
  EXPECT_EQ(given.delivery.level, Deliveries::at_least_once);
  EXPECT_EQ(given.order.level, Ordering::per_key);
  EXPECT_EQ(given.atomicity.level, Atomicity::message);
  EXPECT_EQ(given.freshness.level, Freshness::at_once);
  EXPECT_EQ(given.survival.site_power_loss, Survives::no);
  EXPECT_THAT(durability(given), HasSubstr("acks=all is no fsync"));
  EXPECT_THAT(given.acknowledged, HasSubstr("kafka"));
}

TEST(Guarantees, CopiesOfATopicCount) {
  EXPECT_EQ(promised("backend: {type: kafka, replication: 1}").survival.disk_loss, Survives::no);
  EXPECT_EQ(promised("backend: {type: kafka, replication: 1}").survival.power_loss, Survives::no);
  EXPECT_EQ(promised("backend: {type: kafka, replication: 3}").survival.disk_loss, Survives::depends);
  EXPECT_EQ(promised("backend: {type: nats, replication: 3}").survival.disk_loss, Survives::yes);
  EXPECT_EQ(promised("backend: {type: nats, replication: 1}").survival.disk_loss, Survives::no);
}

TEST(Guarantees, OfRedisAreThoseOfItsAppendOnlyFile) {
  const auto given = promised("backend: redis");
  EXPECT_EQ(given.survival.power_loss, Survives::depends);
  EXPECT_THAT(durability(given), HasSubstr("appendfsync"));
}

TEST(Guarantees, OfEmbeddedTwinsAreOneSyncedCopy) {
  for (const std::string backend : {"kafka", "nats", "redis", "sqlite"}) {
    const auto given = promised("pattern: outbox, backend: " + backend, true);
    EXPECT_EQ(given.survival.process_kill, Survives::yes) << backend;
    EXPECT_EQ(given.survival.power_loss, Survives::yes) << backend;
    EXPECT_EQ(given.survival.site_power_loss, Survives::yes) << backend;
    EXPECT_EQ(given.survival.disk_loss, Survives::no) << backend;
    EXPECT_THAT(durability(given), HasSubstr("one copy, synced to disk"));
  }
}

TEST(Guarantees, OfAnOutboxClaimNoAtomicityWithTheApplicationsRows) {
  const auto given = promised("pattern: outbox, backend: kafka");
  EXPECT_EQ(given.atomicity.level, Atomicity::call);
  EXPECT_EQ(given.freshness.level, Freshness::eventually);
  EXPECT_THAT(given.limits,
              Contains(Field(&Because::why, HasSubstr("not atomic with rows that the application writes"))));
  EXPECT_THAT(given.acknowledged, HasSubstr("committed row in postgres"));
  // Both the table and the log hold a message at some time, so the weaker of the two counts.
  EXPECT_EQ(given.durability.size(), 2U);
  EXPECT_EQ(given.survival.site_power_loss, Survives::no);
  EXPECT_EQ(given.delivery.because.size(), 2U);
}

// What is said for a claim is true of it as it stands, not of what it was further down.
TEST(Guarantees, ReasonsAreThoseOfTheClaim) {
  const auto given = promised("patterns: [claim-check, outbox], backend: kafka");
  EXPECT_THAT(given.freshness.because, ElementsAre(Field(&Because::step, "outbox")));
  EXPECT_THAT(given.atomicity.because,
              ElementsAre(Field(&Because::step, "outbox"), Field(&Because::step, "claim-check")));
  EXPECT_THAT(given.atomicity.text, HasSubstr("one Publish or PublishBatch are published all or none"));
  EXPECT_THAT(promised("backend: kafka").freshness.because, ElementsAre(Field(&Because::step, "kafka")));
}

TEST(Guarantees, OfAClaimCheckDependOnTheObjectStoreAndTheExpiry) {
  const auto given = promised("pattern: claim-check, backend: nats, cleanup: {ttl: 2h}");
  EXPECT_THAT(durability(given), HasSubstr("s3: payloads larger than 1MB"));
  EXPECT_THAT(given.limits, Contains(Field(&Because::why, HasSubstr("later than 2h"))));
  EXPECT_THAT(given.delivery.because, SizeIs(2));
  EXPECT_THAT(promised("pattern: claim-check, backend: nats, cleanup: {strategy: retention, ttl: infinite}").limits,
              IsEmpty());
}

// proves: X-35
TEST(Guarantees, AStrongReadOfAChainThatIsNotFreshIsAContradiction) {
  const auto text = [](const std::string& cache, const std::string& mode) {
    return "namespaces: [{name: a, backend: postgres, patterns: [{type: cache" + cache + "}, wal], consistency: {" +
           mode + "}}]";
  };
  const auto parsed = parse_text(text(", ttl: 900", "read_mode: wal_first"), components());
  const auto& items = parsed.diagnostics.items();
  const auto found = std::ranges::find(items, "CONTRADICTING_GUARANTEES", &config::Diagnostic::reason);
  ASSERT_NE(found, items.end()) << format_text(parsed.diagnostics);
  EXPECT_THAT(found->details,
              ElementsAre(testing::Pair("step", "cache"), testing::Pair("asked_by", "write-ahead-log")));
  EXPECT_THAT(found->message, HasSubstr("at cache they no longer do"));
  // Not asked for, or not taken away.
  for (const auto& [cache, mode] : std::vector<std::pair<std::string, std::string>>{
           {"", ""}, {", strategy: write-through", "read_mode: wal_first"}, {"", "read_mode: database"}}) {
    EXPECT_FALSE(parse_text(text(cache, mode), components()).diagnostics.has("CONTRADICTING_GUARANTEES"))
        << text(cache, mode);
  }
}

TEST(Summary, NamesChainJobsAndBackends) {
  const auto parsed = parse_text(
      "backends: {main: {type: sqlite, path: /tmp/x.db}}\nnamespaces: [{name: media, patterns: [outbox, claim-check, "
      "{type: tiered-storage, enabled: false}], database: main, backend: kafka, state: main, publisher: {cleanup: "
      "{strategy: mark_published, retention: 1 day}}}]",
      components());
  ASSERT_TRUE(parsed.ok()) << format_text(parsed.diagnostics);
  const auto summary = summarize(parsed.file, parsed.file.namespaces[0], components(), false);
  EXPECT_THAT(summary.chain, ElementsAre("claim-check", "outbox", "kafka"));
  EXPECT_THAT(summary.reordered, HasSubstr("outbox and claim-check"));
  EXPECT_THAT(summary.apis, ElementsAre("pubsub", "queue", "transact"));
  std::vector<std::string> jobs;
  for (const auto& job : summary.jobs) jobs.push_back(job.name);
  EXPECT_THAT(jobs, ElementsAre("media/claim-check/cleaner", "media/claim-check/sweeper", "media/outbox/relay",
                                "media/outbox/cleanup"));
  std::map<std::string, std::string> bindings;
  for (const auto& backend : summary.backends) bindings[backend.name] = to_string(backend.binding);
  EXPECT_EQ(bindings.at("main"), "configured");
  for (const auto* name : {"kafka", "s3"}) {
    EXPECT_EQ(bindings.at(name), components().backend(name)->connect ? "not-configured" : "no-connector") << name;
  }
  const std::string text = format_text(summary);
  EXPECT_THAT(text, HasSubstr("claim-check -> outbox -> kafka"));
  EXPECT_THAT(text, HasSubstr("survives a killed process; survives only if the backends are set up for it: "));
  EXPECT_THAT(text, HasSubstr("; does not survive"));
  std::size_t longest = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    longest = std::max(longest, end - at);
    at = end + 1;
  }
  EXPECT_LE(longest, 120U);
}

}  // namespace
}  // namespace prism
