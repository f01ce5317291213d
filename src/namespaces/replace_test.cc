// Replacing the namespaces of a running registry.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <thread>

#include "base/ids.h"
#include "namespaces/parse.h"
#include "namespaces/registry.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using namespace std::chrono_literals;

// One namespace "test" of these patterns, and "other" beside it.
std::string file(const std::string& patterns, const std::string& backend = "kafka") {
  return "namespaces:\n  - {name: test, client_api: pubsub, patterns: [" + patterns + "], backend: " + backend +
         "}\n  - {name: other, client_api: pubsub, backend: kafka}\n";
}
constexpr char kOutbox[] = "{type: outbox, database: postgres}";

struct ReplaceTest : testing::Test {
  ReplaceTest() {
    std::string pattern = testing::TempDir() + "prism-replace-XXXXXX";
    dir = mkdtemp(pattern.data());
  }
  ~ReplaceTest() override {
    if (registry != nullptr) run_blocking(registry->close(Context()));
    registry.reset();
    std::filesystem::remove_all(dir);
  }
  static FileSpec parse(const std::string& yaml) {
    auto parsed = parse_text(yaml, components());
    EXPECT_TRUE(parsed.ok()) << config::format_text(parsed.diagnostics);
    return std::move(parsed.file);
  }
  void open(const std::string& yaml, Clock::duration handover = 20s) {
    ASSERT_EQ(try_to_open(yaml, {.handover = handover}), "");
  }
  // The error's reason and message, or nothing.
  std::string try_to_open(const std::string& yaml, Registry::Options options) {
    options.data_dir = dir;
    options.embedded = true;
    options.holder = uuid7();
    options.lease_ttl = 2s;
    auto opened =
        run_blocking(Registry::open(Context(), parse(yaml), components(), runtime, metrics, std::move(options)));
    if (!opened) return opened.error().describe();
    registry = std::move(*opened);
    return {};
  }
  void stop() {
    run_blocking(registry->close(Context()));
    registry.reset();
  }
  std::vector<std::string> topic_names(const std::string& ns) {
    std::vector<std::string> out;
    const auto topics = run_blocking(registry->find(ns)->topics(Context()));
    EXPECT_TRUE(topics) << topics.error().describe();
    if (topics) std::ranges::transform(*topics, std::back_inserter(out), &TopicState::name);
    return out;
  }
  Result<Registry::Replacement> replace(const std::string& yaml, std::set<std::string> abandon = {}) {
    return run_blocking(registry->replace(Context(), parse(yaml), {.abandon = std::move(abandon), .commit = {}}));
  }
  void must_replace(const std::string& yaml) {
    const auto done = replace(yaml);
    ASSERT_TRUE(done) << done.error().describe();
  }
  Result<Appended> publish(const std::string& ns, std::string payload, std::string key = "k") {
    auto target = registry->resolve(ns, "");
    if (!target) return std::unexpected(std::move(target).error());
    Message m;
    m.topic = target->topic;
    m.id = uuid7();
    m.key = std::move(key);
    m.payload = Payload(Bytes(std::move(payload)));
    Batch<Message> batch;
    batch.push_back(std::move(m));
    return std::move(run_blocking(target->ns->publisher().publish(Context(), std::move(batch))).front());
  }
  std::unique_ptr<Subscription> subscribe(const std::string& ns, const std::string& group = "g") {
    auto target = registry->resolve(ns, "", Registry::Use::other);
    EXPECT_TRUE(target);
    GroupSpec spec;
    spec.topic = target->topic;
    spec.group = group;
    auto made = run_blocking(target->ns->subscriber().subscribe(Context(), std::move(spec)));
    EXPECT_TRUE(made) << made.error().describe();
    return std::move(*made);
  }
  static std::string receive_and_ack(Subscription& subscription) {
    while (true) {
      auto batch = run_blocking(subscription.receive(Context().with_timeout(30s), 1, 1 << 20));
      EXPECT_TRUE(batch) << batch.error().describe();
      if (!batch) return {};
      if (batch->empty()) continue;
      auto body = run_blocking(batch->front().message.payload.collect(Context(), 100'000'000));
      EXPECT_TRUE(body) << body.error().describe();
      Batch<Settle> settles;
      settles.push_back({.token = batch->front().token});
      EXPECT_EQ(run_blocking(subscription.settle(Context(), std::move(settles))).front(), Settled::ok);
      return body ? body->str() : std::string();
    }
  }
  void pause(const std::string& job) {
    ASSERT_TRUE(registry->pause_job(job));
    wait_for([&] {
      return std::ranges::all_of(registry->jobs(),
                                 [&](const auto& s) { return s.name != job || s.state == JobState::paused; });
    });
  }
  template <class F>
  static void wait_for(F done) {
    const auto deadline = Clock::now() + 30s;
    while (!done()) {
      ASSERT_LT(Clock::now(), deadline);
      std::this_thread::yield();
    }
  }
  const Namespace* assembly(const std::string& name) { return registry->find(name).get(); }

  std::string dir;
  Runtime runtime;
  Metrics metrics;
  std::unique_ptr<Registry> registry;
};

// proves: R-70
TEST_F(ReplaceTest, WhatIsUnchangedStaysAsItIs) {
  open(file(kOutbox));
  const auto* const test = assembly("test");
  const auto* const other = assembly("other");
  const auto done = replace(file("{type: outbox, database: postgres, publisher: {batch_size: 7}}"));
  ASSERT_TRUE(done) << done.error().describe();
  EXPECT_EQ(done->built, std::vector<std::string>{"test"});
  EXPECT_NE(assembly("test"), test);
  EXPECT_EQ(assembly("other"), other);
  wait_for([&] { return registry->retired() == 0; });
  // Another spelling of the same is the same, and so is a default that is written down.
  const auto* const now = assembly("test");
  must_replace(
      file("{type: outbox, config: {database: {backend: postgres}, table: outbox, publisher: {batch_size: 7}}}"));
  EXPECT_EQ(assembly("test"), now);
}

// proves: N-05
TEST_F(ReplaceTest, WhatOldOptionsHaveStoredStaysReadable) {
  const std::string claim = "{type: claim-check, threshold: %, storage: s3, cleanup: {interval: 20ms}}";
  const auto with = [&](const std::string& threshold) {
    std::string text = claim;
    return file(std::string(kOutbox) + ", " + text.replace(text.find('%'), 1, threshold));
  };
  open(with("1kB"));
  auto subscription = subscribe("test");
  ASSERT_TRUE(publish("test", std::string(5'000, 'a')));
  must_replace(with("1MB"));
  ASSERT_TRUE(publish("test", std::string(5'000, 'b')));
  must_replace(with("2kB"));
  ASSERT_TRUE(publish("test", std::string(5'000, 'c')));
  for (const char expected : {'a', 'b', 'c'}) EXPECT_EQ(receive_and_ack(*subscription), std::string(5'000, expected));
  run_blocking(subscription->close(Context()));
}

// proves: N-04, R-70
TEST_F(ReplaceTest, PatternsAreAddedAndRemovedWithoutLosingOrTurningOverAnything) {
  open(file(""));
  auto subscription = subscribe("test");
  std::vector<std::string> sent;
  for (int i = 0; i < 10; ++i) {
    for (int n = 0; n < 20; ++n) {
      sent.push_back(std::to_string(sent.size()));
      ASSERT_TRUE(publish("test", sent.back()));
    }
    must_replace(file(i % 2 == 0 ? kOutbox : ""));
  }
  for (const auto& expected : sent) ASSERT_EQ(receive_and_ack(*subscription), expected);
  run_blocking(subscription->close(Context()));
}

// proves: R-70
TEST_F(ReplaceTest, AnOutboxWithRowsIsNotTakenAway) {
  open(file(kOutbox), 300ms);
  pause("test/outbox/relay");
  ASSERT_TRUE(publish("test", "first"));
  const auto* const before = assembly("test");
  for (const auto& next : {file(""), file("{type: outbox, database: postgres, table: another}"),
                           std::string("namespaces: [{name: other, client_api: pubsub, backend: kafka}]")}) {
    const auto in_the_way = run_blocking(registry->in_the_way(Context(), parse(next)));
    ASSERT_TRUE(in_the_way);
    ASSERT_EQ(in_the_way->size(), 1U);
    EXPECT_EQ(in_the_way->front().name, "test");
    const auto refused = replace(next);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().reason, "NAMESPACE_HAS_WORK");
    EXPECT_NE(refused.error().message.find("1 row of table outbox that is not published"), std::string::npos)
        << refused.error().message;
    EXPECT_EQ(assembly("test"), before);
    ASSERT_TRUE(publish("other", "x"));
  }
  // It stays as if nothing had been, and goes when its work is done.
  ASSERT_TRUE(publish("test", "second"));
  ASSERT_TRUE(registry->resume_job("test/outbox/relay"));
  auto subscription = subscribe("test");
  EXPECT_EQ(receive_and_ack(*subscription), "first");
  EXPECT_EQ(receive_and_ack(*subscription), "second");
  wait_for([&] {
    const auto left = run_blocking(registry->in_the_way(Context(), parse(file(""))));
    return left && left->empty();
  });
  must_replace(file(""));
  EXPECT_EQ(registry->find("test")->chain(), std::vector<std::string>{"kafka"});
  run_blocking(subscription->close(Context()));
}

// proves: R-70
TEST_F(ReplaceTest, PublishesWaitWhileAnOutboxIsDrained) {
  open(file(kOutbox));
  pause("test/outbox/relay");
  ASSERT_TRUE(publish("test", "first"));
  Result<Registry::Replacement> done;
  std::thread replacing([&] { done = replace(file("")); });
  wait_for([&] { return registry->resolve("test", "")->ns->chain().empty(); });  // from now on publishes wait
  std::atomic<bool> answered = false;
  std::thread publishing([&] {
    EXPECT_TRUE(publish("test", "second"));
    answered = true;
  });
  EXPECT_FALSE(answered);
  ASSERT_TRUE(registry->resume_job("test/outbox/relay"));
  replacing.join();
  publishing.join();
  ASSERT_TRUE(done) << done.error().describe();
  auto subscription = subscribe("test");
  EXPECT_EQ(receive_and_ack(*subscription), "first");
  EXPECT_EQ(receive_and_ack(*subscription), "second");
  run_blocking(subscription->close(Context()));
}

// proves: R-70
TEST_F(ReplaceTest, ATopicIsChangedWhenItIsConsumed) {
  open(file("", "{type: kafka, topic: one}"), 300ms);
  auto subscription = subscribe("test");
  ASSERT_TRUE(publish("test", "x"));
  const std::string next = file("", "{type: kafka, topic: two}");
  const auto refused = replace(next);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "NAMESPACE_HAS_WORK");
  EXPECT_NE(refused.error().message.find("1 message in topic one that group g has not acknowledged"), std::string::npos)
      << refused.error().message;
  EXPECT_EQ(receive_and_ack(*subscription), "x");
  const auto old = registry->find("test");
  must_replace(next);
  EXPECT_TRUE(old->replaced().stop_requested());
  EXPECT_EQ(registry->resolve("test", "")->topic, "two");
  ASSERT_TRUE(publish("test", "y"));
  auto again = subscribe("test");
  EXPECT_EQ(receive_and_ack(*again), "y");
  run_blocking(subscription->close(Context()));
  run_blocking(again->close(Context()));
}

// What a group that is taken from the list has not acknowledged would be cleaned up under it.
// proves
TEST_F(ReplaceTest, AGroupIsTakenAwayWhenItHasConsumed) {
  const auto with = [](const std::string& groups) {
    return "namespaces: [{name: test, patterns: [pub-sub, claim-check], claim_check: {threshold: 1kB, storage: "
           "{backend: s3, bucket: b}}, pub_sub: {consumer_groups: " +
           groups + "}, backend: kafka}]";
  };
  open(with("[a, b]"), 300ms);
  const std::string large(3'000, 'x');
  ASSERT_TRUE(publish("test", large));
  auto a = subscribe("test", "a");
  EXPECT_EQ(receive_and_ack(*a), large);
  const auto refused = replace(with("[a]"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "NAMESPACE_HAS_WORK");
  EXPECT_NE(refused.error().message.find("1 message in topic test that group b has not acknowledged"),
            std::string::npos)
      << refused.error().message;
  const auto in_the_way = run_blocking(registry->in_the_way(Context(), parse(with("[a]"))));
  ASSERT_TRUE(in_the_way);
  EXPECT_EQ(in_the_way->size(), 1U);
  must_replace(with("[b, a]"));
  auto b = subscribe("test", "b");
  EXPECT_EQ(receive_and_ack(*b), large);
  must_replace(with("[a]"));
  run_blocking(a->close(Context()));
  run_blocking(b->close(Context()));
}

// proves: R-70
TEST_F(ReplaceTest, AnAbandonedTopicIsNotInTheWayOfLaterChanges) {
  open(file("", "{type: kafka, topic: one}"), 300ms);
  auto subscription = subscribe("test");
  ASSERT_TRUE(publish("test", "x"));
  const auto abandoned = replace(file("", "{type: kafka, topic: two}"), {"test"});
  ASSERT_TRUE(abandoned) << abandoned.error().describe();
  EXPECT_EQ(abandoned->abandoned.size(), 1U);
  must_replace(file("", "{type: kafka, topic: three}"));
  run_blocking(subscription->close(Context()));
}

// proves: R-70
TEST_F(ReplaceTest, WorkIsAbandonedByNameOnly) {
  open(file(kOutbox), 300ms);
  pause("test/outbox/relay");
  ASSERT_TRUE(publish("test", "x"));
  const std::string next = "namespaces: [{name: other, client_api: pubsub, backend: kafka}]";
  EXPECT_EQ(replace(next, {"other"}).error().reason, "NAMESPACE_HAS_WORK");
  const auto done = replace(next, {"test"});
  ASSERT_TRUE(done) << done.error().describe();
  ASSERT_EQ(done->abandoned.size(), 1U);
  EXPECT_EQ(done->abandoned.front().name, "test");
  EXPECT_EQ(done->removed, std::vector<std::string>{"test"});
  EXPECT_EQ(registry->resolve("test", "").error().reason, "NAMESPACE_NOT_FOUND");
}

// proves: R-70, L-18
TEST_F(ReplaceTest, WhatCannotBeBuiltChangesNothing) {
  open(file(kOutbox));
  const auto* const before = assembly("test");
  const auto bindings = registry->bindings();
  // The table is there, and is not one of an outbox.
  const auto database = run_blocking(components().backend("postgres")->embed(Context(), runtime, "postgres", dir));
  ASSERT_TRUE(database);
  ASSERT_TRUE(run_blocking((*database)->sql()->create_table(
      Context(), TableSpec{.name = "strange", .columns = {{"id", ColumnType::id, true}}, .indexes = {}})));
  run_blocking((*database)->close(Context()));
  const auto refused = replace(
      "namespaces:\n  - {name: new, client_api: pubsub, backend: nats}\n"
      "  - {name: test, client_api: pubsub, patterns: [{type: outbox, database: postgres, table: strange}], backend: "
      "kafka}\n"
      "  - {name: other, client_api: pubsub, backend: kafka}\n");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "OUTBOX_TABLE_LACKS_COLUMN");
  EXPECT_EQ(assembly("test"), before);
  EXPECT_EQ(registry->find("new"), nullptr);
  EXPECT_EQ(registry->bindings(), bindings);
  EXPECT_TRUE(publish("test", "x"));
}

// proves: R-70
TEST_F(ReplaceTest, ACommitThatFailsChangesNothing) {
  open(file(kOutbox));
  const auto* const before = assembly("test");
  const auto refused = run_blocking(registry->replace(
      Context(), parse(file("")),
      {.abandon = {}, .commit = [] { return Result<void>(fail(Code::unknown, "FILE_UNWRITABLE", "no")); }}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "FILE_UNWRITABLE");
  EXPECT_EQ(assembly("test"), before);
  EXPECT_TRUE(publish("test", "x"));
}

// proves: R-70
TEST_F(ReplaceTest, SubscriptionsEndOnlyWhereTheyWouldBeOthers) {
  const auto with = [](const std::string& outbox, const std::string& groups) {
    return "namespaces:\n  - name: test\n    patterns: [" + outbox +
           "{type: pub-sub}]\n    pub_sub: {consumer_groups: [" + groups + "]}\n    backend: kafka\n";
  };
  open(with("", "{name: a}, {name: b}"));
  const auto first = registry->find("test");
  must_replace(with(std::string(kOutbox) + ", ", "{name: a}, {name: b}"));
  EXPECT_FALSE(first->replaced().stop_requested()) << "only the way in has changed";
  const auto second = registry->find("test");
  EXPECT_NE(first.get(), second.get());
  must_replace(with(std::string(kOutbox) + ", ", "{name: a}"));
  EXPECT_TRUE(first->replaced().stop_requested()) << "an earlier assembly is judged again";
  EXPECT_TRUE(second->replaced().stop_requested());
  EXPECT_FALSE(registry->find("test")->replaced().stop_requested());
}

// proves: R-70
TEST_F(ReplaceTest, PausedJobsStayPausedAndUnusedBackendsAreClosed) {
  open(file(kOutbox));
  const std::size_t backends = registry->bindings().size();
  pause("test/outbox/relay");
  must_replace(file("{type: outbox, database: postgres, publisher: {interval: 50ms}}"));
  pause("test/outbox/relay");
  ASSERT_TRUE(registry->resume_job("test/outbox/relay"));
  must_replace(file(""));
  wait_for([&] { return registry->retired() == 0; });
  EXPECT_EQ(registry->bindings().size(), backends - 1);
  EXPECT_EQ(registry->pause_job("test/outbox/relay").error().reason, "JOB_NOT_FOUND");
}

// proves: R-70, N-04
TEST_F(ReplaceTest, UnderLoadNothingIsLostAndOrderIsKept) {
  constexpr int kPublishers = 3;
  open(file(""));
  std::atomic<bool> stop = false, published_all = false;
  std::vector<std::thread> publishers;
  std::vector<int> acknowledged(kPublishers);
  for (int p = 0; p < kPublishers; ++p) {
    publishers.emplace_back([&, p] {
      for (int n = 0; !stop; ++n) {
        const auto done = publish("test", std::to_string(p) + " " + std::to_string(n), "key" + std::to_string(p));
        ASSERT_TRUE(done) << done.error().describe();
        acknowledged[static_cast<std::size_t>(p)] = n + 1;
      }
    });
  }
  std::vector<int> received(kPublishers);
  auto subscription = subscribe("test");
  std::thread consumer([&] {
    const auto done = [&] { return published_all && received == acknowledged; };
    const auto deadline = Clock::now() + 60s;
    while (!done() && Clock::now() < deadline) {
      auto batch = run_blocking(subscription->receive(Context().with_timeout(100ms), 100, 1 << 20));
      ASSERT_TRUE(batch || batch.error().code == Code::deadline_exceeded);
      if (!batch) continue;
      Batch<Settle> settles;
      for (auto& each : *batch) {
        const std::string body = each.message.payload.buffered().str();
        const auto p = static_cast<std::size_t>(body[0] - '0');
        const int n = std::stoi(body.substr(2));
        EXPECT_LE(n, received[p]) << "out of order";  // repeats are allowed
        received[p] = std::max(received[p], n + 1);
        settles.push_back({.token = each.token});
      }
      if (!settles.empty()) run_blocking(subscription->settle(Context(), std::move(settles)));
    }
  });
  const std::string files[] = {
      file(kOutbox), file("{type: outbox, database: postgres, table: second}"),
      file(""),      file("{type: claim-check, threshold: 5B, storage: s3}, " + std::string(kOutbox)),
      file(kOutbox), file("")};
  for (int i = 0; i < 18; ++i) {
    const auto done = replace(files[i % 6], {});
    // A stored payload may still wait for its clean-up: that one stays, and the next file comes.
    if (!done) EXPECT_EQ(done.error().reason, "NAMESPACE_HAS_WORK") << done.error().describe();
  }
  stop = true;
  for (auto& thread : publishers) thread.join();
  published_all = true;
  consumer.join();
  EXPECT_EQ(received, acknowledged);
  run_blocking(subscription->close(Context()));
}

// proves: R-70
TEST_F(ReplaceTest, ATopicKeepsItsPartitions) {
  const auto with = [](const std::string& backend) { return file("", "{type: kafka, topic: t" + backend + "}"); };
  open(with(", partitions: 4"));
  auto subscription = subscribe("test");
  ASSERT_TRUE(publish("test", "x"));
  const auto* const before = assembly("test");
  for (const auto& [partitions, says] : {std::pair("8", "more"), std::pair("2", "cannot be taken away")}) {
    const std::string next = with(std::string(", partitions: ") + partitions);
    const auto dry = run_blocking(registry->in_the_way(Context(), parse(next)));
    ASSERT_FALSE(dry);
    EXPECT_EQ(dry.error().reason, "TOPIC_PARTITIONS_FIXED");
    const auto refused = replace(next);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().reason, "TOPIC_PARTITIONS_FIXED");
    EXPECT_NE(refused.error().message.find("has 4 partitions and the file asks for"), std::string::npos);
    EXPECT_NE(refused.error().message.find(says), std::string::npos) << refused.error().message;
    EXPECT_EQ(assembly("test"), before);
  }
  must_replace(with(""));  // as many as it has
  must_replace(with(", partitions: 4"));
  // Another topic may have others.
  EXPECT_EQ(receive_and_ack(*subscription), "x");
  run_blocking(subscription->close(Context()));
  must_replace(with("2, partitions: 8"));
  ASSERT_TRUE(publish("test", "y"));
  EXPECT_EQ(run_blocking(registry->find("test")->topics(Context()))->front().partitions.size(), 8U);
}

// proves: R-70
TEST_F(ReplaceTest, AStartWithOtherPartitionsSaysSo) {
  open(file("", "{type: kafka, partitions: 4}"));
  ASSERT_TRUE(publish("test", "x"));
  EXPECT_TRUE(registry->find("test")->notices().empty());
  stop();
  open(file("", "{type: kafka, partitions: 8}"));
  const auto notices = registry->find("test")->notices();
  ASSERT_EQ(notices.size(), 1U);
  EXPECT_EQ(notices[0].reason, "TOPIC_PARTITIONS_FIXED");
  EXPECT_NE(notices[0].message.find("topic \"test\" has 4 partitions and the file asks for 8"), std::string::npos);
  // It does not stand in the way of other changes.
  must_replace(file(kOutbox, "{type: kafka, partitions: 8}"));
  ASSERT_TRUE(publish("test", "y"));
  EXPECT_EQ(registry->find("test")->notices().size(), 1U);
  // A topic that is seen only when it is used is told of then.
  ASSERT_TRUE(
      replace("namespaces: [{name: test, client_api: pubsub, backend: {type: kafka, partitions: 3, topic: t}}, {name: "
              "other, client_api: pubsub, backend: {type: kafka, partitions: 5, topic: t}}]",
              {"test"}));
  EXPECT_TRUE(registry->find("other")->notices().empty());
  ASSERT_TRUE(publish("test", "x"));
  ASSERT_TRUE(publish("other", "x"));
  EXPECT_TRUE(registry->find("test")->notices().empty());
  EXPECT_EQ(registry->find("other")->notices().size(), 1U);
}

// proves: R-70
TEST_F(ReplaceTest, TopicsAreThoseOfTheNamespaceAsItIs) {
  const auto with = [](const std::string& backend) { return file("", "{" + backend + "}"); };
  open(with("type: kafka, topic: one"));
  auto subscription = subscribe("test");
  ASSERT_TRUE(publish("test", "x"));
  receive_and_ack(*subscription);
  run_blocking(subscription->close(Context()));
  EXPECT_EQ(topic_names("test"), std::vector<std::string>{"one"});
  must_replace(with("type: kafka, topic: two"));
  EXPECT_EQ(topic_names("test"), std::vector<std::string>{});
  ASSERT_TRUE(publish("test", "x"));
  EXPECT_EQ(topic_names("test"), std::vector<std::string>{"two"});
  // A look makes no topics in another log.
  ASSERT_TRUE(replace(with("type: nats, topic: two"), {"test"}));
  EXPECT_EQ(topic_names("test"), std::vector<std::string>{});
}

// proves: R-70
TEST_F(ReplaceTest, AnotherStateStoreKnowsTheTopicsToo) {
  const auto with = [](const std::string& state) {
    return "namespaces: [{name: test, client_api: pubsub, backend: {type: kafka, topic_prefix: p}" + state + "}]";
  };
  open(with(""));
  auto target = registry->resolve("test", "named");
  ASSERT_TRUE(target);
  Batch<Message> batch;
  batch.push_back({.topic = target->topic,
                   .id = uuid7(),
                   .key = {},
                   .headers = {},
                   .attributes = {},
                   .payload = Payload(Bytes("x"))});
  ASSERT_TRUE(run_blocking(target->ns->publisher().publish(Context(), std::move(batch))).front());
  target = std::unexpected(Error{});
  EXPECT_EQ(topic_names("test"), std::vector<std::string>{"p.named"});
  must_replace(with(", state: sqlite"));
  EXPECT_EQ(topic_names("test"), std::vector<std::string>{"p.named"});
}

// proves: R-70
TEST_F(ReplaceTest, WhatWasChangedWhileNothingServedIsHandedOverAtTheStart) {
  const std::string with = file("{type: outbox, database: postgres, table: second}");
  open(file(kOutbox));
  pause("test/outbox/relay");
  for (const auto* payload : {"first", "second"}) ASSERT_TRUE(publish("test", payload));
  stop();
  // The rows of the table that is gone are published first.
  ASSERT_EQ(try_to_open(with, {.before = parse(file(kOutbox))}), "");
  ASSERT_TRUE(publish("test", "third"));
  auto subscription = subscribe("test");
  for (const auto* payload : {"first", "second", "third"}) EXPECT_EQ(receive_and_ack(*subscription), payload);
  run_blocking(subscription->close(Context()));
  // What clients have not consumed nobody will, so that it does not start.
  ASSERT_TRUE(publish("other", "x"));
  stop();
  const std::string without = "namespaces: [{name: test, client_api: pubsub, backend: kafka}]";
  const auto refused = try_to_open(without, {.before = parse(with)});
  EXPECT_NE(refused.find("NAMESPACE_HAS_WORK: the file was changed while the server was stopped"), std::string::npos);
  EXPECT_NE(refused.find("namespace \"other\" has 1 message in topic other that nobody has consumed"),
            std::string::npos)
      << refused;
  EXPECT_NE(try_to_open(without, {.before = parse(with), .abandon = {"test"}}), "");
  EXPECT_EQ(try_to_open(without, {.before = parse(with), .abandon = {"other"}}), "");
  EXPECT_EQ(registry->find("other"), nullptr);
}

}  // namespace
}  // namespace prism
