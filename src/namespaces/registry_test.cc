#include "namespaces/registry.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/ids.h"
#include "namespaces/parse.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using namespace std::chrono_literals;

constexpr char kChain[] = R"(
namespaces:
  - name: test
    client_api: pubsub
    patterns:
      - {type: outbox, database: postgres}
      - {type: claim-check, threshold: 1MB, storage: s3, cleanup: {interval: 20ms}}
    backend: {type: kafka}
)";

// A registry over embedded backends in a folder of its own.
struct RegistryTest : testing::Test {
  RegistryTest() {
    std::string pattern = testing::TempDir() + "prism-registry-XXXXXX";
    dir = mkdtemp(pattern.data());
  }
  ~RegistryTest() override {
    close();
    std::filesystem::remove_all(dir);
  }
  Result<void> try_open(const std::string& yaml) {
    auto parsed = parse_text(yaml, components());
    EXPECT_TRUE(parsed.ok()) << config::format_text(parsed.diagnostics);
    auto opened = run_blocking(Registry::open(Context(), std::move(parsed.file), components(), runtime, metrics,
                                              {.data_dir = dir, .embedded = true, .holder = uuid7()}));
    if (!opened) return std::unexpected(std::move(opened).error());
    registry = std::move(*opened);
    return {};
  }
  void open(const std::string& yaml) {
    const auto opened = try_open(yaml);
    ASSERT_TRUE(opened) << opened.error().describe();
  }
  void close() {
    if (registry != nullptr) run_blocking(registry->close(Context()));
    registry.reset();
  }
  Result<Appended> publish(const std::string& ns, const std::string& topic, std::string payload, std::string key = {}) {
    auto target = registry->resolve(ns, topic);
    if (!target) return std::unexpected(std::move(target).error());
    Message m;
    m.topic = target->topic;
    m.id = uuid7();
    m.key = std::move(key);
    m.headers.emplace_back("model", Bytes("v2"));
    m.payload = Payload(Bytes(std::move(payload)));
    Batch<Message> batch;
    batch.push_back(std::move(m));
    return std::move(run_blocking(target->ns->publisher().publish(Context(), std::move(batch))).front());
  }
  std::unique_ptr<Subscription> subscribe(const std::string& ns, const std::string& topic, const std::string& group) {
    auto target = registry->resolve(ns, topic);
    EXPECT_TRUE(target);
    GroupSpec spec;
    spec.topic = target->topic;
    spec.group = group;
    auto made = run_blocking(target->ns->subscriber().subscribe(Context(), std::move(spec)));
    EXPECT_TRUE(made) << made.error().describe();
    return std::move(*made);
  }
  static Received receive_one(Subscription& subscription) {
    while (true) {
      auto batch = run_blocking(subscription.receive(Context().with_timeout(30s), 1, 1 << 20));
      EXPECT_TRUE(batch) << batch.error().describe();
      if (!batch || !batch->empty()) return std::move(batch->front());
    }
  }
  static void ack(Subscription& subscription, const Received& received) {
    Batch<Settle> settles;
    settles.push_back({.token = received.token});
    EXPECT_EQ(run_blocking(subscription.settle(Context(), std::move(settles))).front(), Settled::ok);
  }
  static std::string body(Received& received) {
    auto all = run_blocking(received.message.payload.collect(Context(), 100'000'000));
    EXPECT_TRUE(all) << all.error().describe();
    return all ? all->str() : std::string();
  }
  SqlRows query(const std::string& text) {
    auto backend = run_blocking(components().backend("postgres")->embed(Context(), runtime, "postgres", dir));
    EXPECT_TRUE(backend);
    auto rows = run_blocking((*backend)->sql()->query(Context(), {text, {}}, 1000));
    EXPECT_TRUE(rows) << rows.error().describe();
    run_blocking((*backend)->close(Context()));
    return *rows;
  }
  std::size_t objects() {
    std::size_t n = 0;
    for (const auto& [bucket, store] : registry->object_stores("s3"))
      n += run_blocking(store->list(Context(), "", "", 1000))->size();
    return n;
  }
  void pause(const std::string& job) {
    ASSERT_TRUE(registry->pause_job(job));
    for (bool paused = false; !paused; std::this_thread::yield()) {
      paused = true;
      for (const auto& s : registry->jobs()) paused = paused && (s.name != job || s.state == JobState::paused);
    }
  }
  void settle_down() {
    const auto deadline = Clock::now() + 30s;
    while (Clock::now() < deadline) {
      const auto done = run_blocking(registry->settled(Context()));
      ASSERT_TRUE(done) << done.error().describe();
      if (*done) return;
      std::this_thread::yield();
    }
    FAIL() << "the background work did not settle";
  }

  std::string dir;
  Runtime runtime;
  Metrics metrics;
  std::unique_ptr<Registry> registry;
};

// proves: K-03, K-05, O-02, O-16, O-17, O-22, X-25
TEST_F(RegistryTest, OutboxAndClaimCheckLeaveARowAndAnObject) {
  open(kChain);
  pause("test/outbox/relay");
  const auto published = publish("test", "models", std::string(5'000'000, 'w'));
  ASSERT_TRUE(published) << published.error().describe();
  EXPECT_EQ(published->durability, Durability::fsync);
  const auto rows =
      query("SELECT topic, claim_check_id, payload_size, length(body), headers FROM outbox WHERE published_at IS NULL");
  ASSERT_EQ(rows.rows.size(), 1U);
  EXPECT_EQ(std::get<std::string>(rows.rows[0][0]), "models");
  EXPECT_EQ(std::get<std::string>(rows.rows[0][1]).size(), 36U);
  EXPECT_EQ(std::get<std::int64_t>(rows.rows[0][2]), 5'000'000);
  EXPECT_EQ(std::get<std::int64_t>(rows.rows[0][3]), 0);
  EXPECT_EQ(std::get<std::string>(rows.rows[0][4]), R"([["model","v2"]])");
  EXPECT_EQ(objects(), 1U);
}

// proves: C-10, C-18, C-22, C-23, C-24, C-29, O-13, O-18, L-12
TEST_F(RegistryTest, EveryGroupGetsThePayloadAndThenItIsCleanedUp) {
  open(kChain);
  auto a = subscribe("test", "models", "a");
  auto b = subscribe("test", "models", "b");
  const std::string large(50'000'000, 'w');
  ASSERT_TRUE(publish("test", "models", large, "k"));
  ASSERT_TRUE(publish("test", "models", "small", "k"));
  for (auto* subscription : {a.get(), b.get()}) {
    EXPECT_EQ(objects(), 1U) << "kept until every group has acknowledged";
    auto first = receive_one(*subscription);
    EXPECT_EQ(body(first), large);
    ASSERT_EQ(first.message.headers.size(), 1U);
    EXPECT_EQ(first.message.headers[0].second, "v2");
    ack(*subscription, first);
    auto second = receive_one(*subscription);
    EXPECT_EQ(body(second), "small");
    ack(*subscription, second);
  }
  settle_down();
  EXPECT_EQ(objects(), 0U);
  EXPECT_TRUE(query("SELECT 1 FROM outbox").rows.empty());
  run_blocking(a->close(Context()));
  run_blocking(b->close(Context()));
}

// proves: X-24
TEST_F(RegistryTest, BothOrdersInTheFileGiveTheSameChain) {
  open(kChain);
  const auto chain = registry->find("test")->chain();
  EXPECT_EQ(chain, (std::vector<std::string>{"claim-check", "outbox", "kafka"}));
  close();
  open(R"(
namespaces:
  - name: test
    patterns:
      - {type: claim-check, threshold: 1MB, storage: s3}
      - {type: outbox, database: postgres}
    backend: {queue: kafka}
)");
  EXPECT_EQ(registry->find("test")->chain(), chain);
}

// proves: L-14, P-03, C-19
TEST_F(RegistryTest, AnEmptyChainPassesStraightToTheLog) {
  open("namespaces: [{name: plain, backend: kafka}]");
  EXPECT_EQ(registry->find("plain")->chain(), std::vector<std::string>{"kafka"});
  ASSERT_TRUE(publish("plain", "t", "hello"));
  auto s = subscribe("plain", "t", "g");
  auto got = receive_one(*s);
  EXPECT_EQ(body(got), "hello");
  EXPECT_EQ(publish("plain", "t", std::string(2'000'000, 'x')).error().reason, "PAYLOAD_TOO_LARGE");
  run_blocking(s->close(Context()));
}

// proves: A-07 (R-21)
TEST_F(RegistryTest, NamesMeanNamespacesOrTopics) {
  open(R"(
namespaces:
  - {name: videos-ns, backend: {type: kafka, topic: videos}}
  - {name: a, backend: {type: kafka, topic: shared}}
  - {name: b, backend: {type: kafka, topic: shared}}
  - {name: prefixed, backend: {queue: kafka, topic_prefix: video}}
)");
  EXPECT_EQ(registry->resolve("", "videos")->ns->name(), "videos-ns");
  EXPECT_EQ(registry->resolve("", "videos-ns")->topic, "videos");
  EXPECT_EQ(registry->resolve("prefixed", "raw")->topic, "video.raw");
  EXPECT_EQ(registry->resolve("prefixed", "")->topic, "video.prefixed");
  EXPECT_EQ(registry->resolve("", "shared").error().reason, "TOPIC_AMBIGUOUS");
  EXPECT_EQ(registry->resolve("", "nonsense").error().reason, "NAMESPACE_NOT_FOUND");
  EXPECT_EQ(registry->resolve("nonsense", "videos").error().reason, "NAMESPACE_NOT_FOUND");
  EXPECT_EQ(registry->resolve("", "").error().reason, "NAMESPACE_MISSING");
  EXPECT_EQ(registry->resolve("a", std::string(300, 'z'))->topic, "shared");
  EXPECT_EQ(registry->resolve("prefixed", std::string(249, 'z')).error().reason, "INVALID_TOPIC");
  EXPECT_EQ(registry->resolve("prefixed", std::string("a\0b", 3)).error().reason, "INVALID_TOPIC");
}

// Said when the file is read already, and here again: clean-up would delete what is another's.
TEST_F(RegistryTest, TwoNamespacesMustNotShareObjects) {
  FileSpec file;
  for (const char* yaml : {"namespaces: [{name: a, patterns: [{type: claim-check, storage: {backend: s3, bucket: x, "
                           "prefix: p/}}], backend: kafka}]",
                           "namespaces: [{name: b, patterns: [{type: claim-check, storage: {backend: s3, bucket: x, "
                           "prefix: p/q/}}], backend: kafka}]"})
    file.namespaces.push_back(std::move(parse_text(yaml, components()).file.namespaces.front()));
  const auto opened = run_blocking(Registry::open(Context(), std::move(file), components(), runtime, metrics,
                                                  {.data_dir = dir, .embedded = true, .holder = uuid7()}));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().reason, "OBJECT_PREFIX_SHARED");
}

// proves: O-10
TEST_F(RegistryTest, TheRelayPublishesToItsDestination) {
  open(R"(
namespaces:
  - name: models
    pattern: outbox
    database: {backend: postgres}
    outbox: {table: model_outbox, publisher: {destination: {backend: kafka, topic: model-releases}}}
)");
  ASSERT_TRUE(publish("models", "whatever", "x"));
  auto s = subscribe("", "model-releases", "g");
  auto got = receive_one(*s);
  EXPECT_EQ(body(got), "x");
  ack(*s, got);
  run_blocking(s->close(Context()));
}

// R-08: where groups are declared, one that has not begun holds deletion, and joining undeclared is refused.
TEST_F(RegistryTest, DeclaredGroupsHoldPayloadsAndOthersAreRefused) {
  open(R"(
namespaces:
  - name: media
    patterns: [claim-check, pub-sub]
    claim_check: {threshold: 1kB, storage: {backend: s3}, cleanup: {interval: 20ms}}
    pub_sub: {consumer_groups: [{name: a}, {name: b}]}
    backend: kafka
)");
  ASSERT_TRUE(publish("media", "t", std::string(5000, 'x')));
  auto a = subscribe("media", "t", "a");
  auto got = receive_one(*a);
  ack(*a, got);
  for (int i = 0; i < 3; ++i) {  // whole rounds of the cleaner
    const auto rounds = [&] {
      for (const auto& s : registry->jobs()) {
        if (s.name == "media/claim-check/cleaner") return s.rounds;
      }
      return std::uint64_t{0};
    };
    const auto before = rounds();
    while (rounds() == before) std::this_thread::yield();
  }
  EXPECT_EQ(objects(), 1U);
  auto b = subscribe("media", "t", "b");
  auto again = receive_one(*b);
  EXPECT_EQ(body(again), std::string(5000, 'x'));
  ack(*b, again);
  settle_down();
  EXPECT_EQ(objects(), 0U);
  GroupSpec spec;
  spec.topic = "t";
  spec.group = "c";
  EXPECT_EQ(run_blocking(registry->find("media")->subscriber().subscribe(Context(), spec)).error().reason,
            "GROUP_NOT_DECLARED");
  run_blocking(a->close(Context()));
  run_blocking(b->close(Context()));
}

// A relay that was killed, or that lost its lease, publishes a message again. proves: O-15, C-23
TEST_F(RegistryTest, ARepeatWhosePayloadIsGoneIsToldFromAMissingPayload) {
  open(R"(
namespaces:
  - name: media
    patterns: [claim-check]
    claim_check: {threshold: 1kB, storage: {backend: s3}, cleanup: {interval: 20ms}}
    backend: {type: kafka, topic: t}
  - {name: raw, backend: {type: kafka, topic: t}}
)");
  ASSERT_TRUE(publish("media", "", std::string(5000, 'x'), "k"));
  auto subscription = subscribe("media", "", "g");
  auto first = receive_one(*subscription);
  // The same record once more, and one that refers to an object that nobody ever stored.
  const auto repeat = [&](std::string id) {
    Message m;
    m.topic = "t";
    m.id = first.message.id;
    m.key = "k";
    m.attributes = first.message.attributes;
    if (!id.empty()) {
      m.set_attribute("claim_check_id", id);
      m.set_attribute("claim_check_key", "claim-checks/" + id);
    }
    Batch<Message> batch;
    batch.push_back(std::move(m));
    ASSERT_TRUE(run_blocking(registry->find("raw")->publisher().publish(Context(), std::move(batch))).front());
  };
  EXPECT_EQ(body(first), std::string(5000, 'x'));
  ack(*subscription, first);
  settle_down();
  ASSERT_EQ(objects(), 0U);
  repeat({});
  repeat(uuid7());
  const auto reason = [](Received& received) {
    auto all = run_blocking(received.message.payload.collect(Context(), 1 << 20));
    return all ? std::string("none") : all.error().reason;
  };
  auto second = receive_one(*subscription);
  EXPECT_EQ(second.message.id, first.message.id);
  EXPECT_EQ(reason(second), kMessageRepeated);
  ack(*subscription, second);
  auto third = receive_one(*subscription);
  EXPECT_EQ(reason(third), "PAYLOAD_MISSING");
  ack(*subscription, third);
  run_blocking(subscription->close(Context()));
}

// proves: O-14, O-15, O-01
TEST_F(RegistryTest, RowsThatWereCommittedBeforeARestartAreRelayed) {
  open(kChain);
  pause("test/outbox/relay");
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(publish("test", "t", std::to_string(i), "key"));
  close();
  open(kChain);
  auto s = subscribe("test", "t", "g");
  for (int i = 0; i < 20; ++i) {
    auto got = receive_one(*s);
    EXPECT_EQ(body(got), std::to_string(i));
    ack(*s, got);
  }
  run_blocking(s->close(Context()));
}

}  // namespace
}  // namespace prism
