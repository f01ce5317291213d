// Conformance of EventLog. Include it in one test file of a backend and instantiate EventLogSuite there:
//   INSTANTIATE_TEST_SUITE_P(Sqlite, EventLogSuite, ::testing::Values(EventLogParam{"sqlite", make_bed}));
// proves: L-02, L-05, L-24
#pragma once

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "capabilities/event_log.h"
#include "runtime/scope.h"

namespace prism {

// An empty log and what surrounds it; destroyed at the end of a test.
class EventLogBed {
 public:
  virtual ~EventLogBed() = default;
  virtual EventLog& log() = 0;
  virtual EventLog& other() = 0;  // the same data through another client, as another process would have it
  // The same again, but whoever joins a group through it is not heard of any more and soon counts as dead, as a killed
  // or stopped process does.
  virtual EventLog& dying() = 0;
  virtual void restart() = 0;   // closes every client and opens them again on the same data
  virtual void recreate() = 0;  // the same with empty data: what was there is gone
};

struct EventLogParam {
  std::string name;
  std::function<std::unique_ptr<EventLogBed>()> make;
  friend void PrintTo(const EventLogParam& p, std::ostream* out) { *out << p.name; }
};

class EventLogSuite : public ::testing::TestWithParam<EventLogParam> {
 protected:
  using Read = Batch<std::pair<Record, Position>>;
  static constexpr std::size_t kMany = 100000;

  void SetUp() override { bed_ = GetParam().make(); }
  EventLog& log() { return bed_->log(); }
  EventLog& other() { return bed_->other(); }

  static Context soon() { return Context().with_timeout(std::chrono::seconds(60)); }
  static Context now() { return Context().with_deadline(Clock::now()); }

  TopicInfo make_topic(std::string name = "orders", std::uint32_t partitions = 0) {
    auto info = run_blocking(log().ensure_topic(soon(), {.name = std::move(name), .partitions = partitions}));
    EXPECT_TRUE(info) << info.error().describe();
    return info ? *info : TopicInfo{};
  }
  static Record record(std::string key, std::string body) {
    return {.id = uuid7(), .key = std::move(key), .headers = {}, .body = Bytes(std::move(body))};
  }
  static Batch<Record> records(std::initializer_list<std::pair<const char*, const char*>> list) {
    Batch<Record> out;
    for (const auto& [key, body] : list) out.push_back(record(key, body));
    return out;
  }
  static Batch<Result<Appended>> try_append(EventLog& log, Batch<Record> batch, std::string topic = "orders") {
    const std::size_t n = batch.size();
    auto out = run_blocking(log.append(soon(), std::move(topic), std::move(batch)));
    EXPECT_EQ(out.size(), n);
    return out;
  }
  static std::vector<Position> append(EventLog& log, Batch<Record> batch, std::string topic = "orders") {
    std::vector<Position> at;
    for (auto& r : try_append(log, std::move(batch), std::move(topic))) {
      EXPECT_TRUE(r) << r.error().describe();
      at.push_back(r ? r->at : Position());
    }
    return at;
  }
  std::vector<Position> append(std::initializer_list<std::pair<const char*, const char*>> list) {
    return append(log(), records(list));
  }

  std::unique_ptr<LogReader> reader(Start start = {}, std::optional<std::uint32_t> partition = {},
                                    std::string topic = "orders") {
    auto r = run_blocking(log().read(soon(), std::move(topic), partition, std::move(start)));
    EXPECT_TRUE(r) << r.error().describe();
    return r ? std::move(*r) : nullptr;
  }
  // Until n records have come.
  static Read read(LogReader& reader, std::size_t n, std::size_t max_bytes = 1UL << 20) {
    Read all;
    while (all.size() < n) {
      auto some = run_blocking(reader.next(soon(), max_bytes));
      EXPECT_TRUE(some) << some.error().describe();
      if (!some || some->empty()) break;
      for (auto& item : *some) all.push_back(std::move(item));
    }
    return all;
  }
  static bool at_end(LogReader& reader) {
    auto r = run_blocking(reader.next(now(), 1UL << 20));
    return r && r->empty();
  }
  static std::vector<std::string> bodies(const Read& read) {
    std::vector<std::string> out;
    for (const auto& [r, at] : read) out.push_back(r.body.str());
    return out;
  }

  static GroupSpec group(std::string name = "billing") {
    GroupSpec spec;
    spec.topic = "orders";
    spec.group = std::move(name);
    return spec;
  }
  static GroupSpec impatient(Clock::duration ack_deadline, std::string name = "billing") {
    GroupSpec spec = group(std::move(name));
    spec.ack_deadline = ack_deadline;
    return spec;
  }
  static std::unique_ptr<GroupConsumer> join(EventLog& log, GroupSpec spec) {
    auto c = run_blocking(log.join(soon(), std::move(spec)));
    EXPECT_TRUE(c) << c.error().describe();
    return c ? std::move(*c) : nullptr;
  }
  // Until n deliveries have come.
  static Batch<Delivery> receive(GroupConsumer& consumer, std::size_t n, std::size_t max = 1000) {
    Batch<Delivery> all;
    while (all.size() < n) {
      auto some = run_blocking(consumer.receive(soon(), std::min(max, n - all.size()), 64UL << 20));
      EXPECT_TRUE(some) << some.error().describe();
      if (!some || some->empty()) break;
      for (auto& d : *some) all.push_back(std::move(d));
    }
    EXPECT_EQ(all.size(), n);
    return all;
  }
  static bool nothing_for(GroupConsumer& consumer, Clock::duration time = {}) {
    auto some = run_blocking(consumer.receive(Context().with_timeout(time), kMany, 64UL << 20));
    EXPECT_TRUE(some) << some.error().describe();
    return some && some->empty();
  }
  static Settle settle(const Delivery& d, Settle::Do what, Clock::duration delay = {}) {
    return {d.token, what, delay, ""};
  }
  static Settled settle_one(GroupConsumer& consumer, const Delivery& d, Settle::Do what = Settle::Do::ack,
                            Clock::duration delay = {}) {
    auto r = run_blocking(consumer.settle(soon(), Batch<Settle>(1, settle(d, what, delay))));
    EXPECT_EQ(r.size(), 1U);
    return r.at(0);
  }
  static Batch<Settled> ack(GroupConsumer& consumer, const Batch<Delivery>& deliveries) {
    Batch<Settle> settles;
    for (const auto& d : deliveries) settles.push_back(settle(d, Settle::Do::ack));
    return run_blocking(consumer.settle(soon(), std::move(settles)));
  }
  static void must_ack(GroupConsumer& consumer, const Batch<Delivery>& deliveries) {
    EXPECT_THAT(ack(consumer, deliveries), ::testing::Each(Settled::ok));
  }
  static std::vector<std::string> bodies(const Batch<Delivery>& deliveries) {
    std::vector<std::string> out;
    for (const auto& d : deliveries) out.push_back(d.record.body.str());
    return out;
  }
  static std::vector<std::uint32_t> attempts(const Batch<Delivery>& deliveries) {
    std::vector<std::uint32_t> out;
    for (const auto& d : deliveries) out.push_back(d.attempt);
    return out;
  }
  static void close(GroupConsumer& consumer) { run_blocking(consumer.close(soon())); }

  Batch<GroupFloor> floors(std::string name = "billing") {
    auto f = run_blocking(log().floors(soon(), "orders", std::move(name)));
    EXPECT_TRUE(f) << f.error().describe();
    return f ? *f : Batch<GroupFloor>();
  }
  // Acknowledged below the floors of all partitions, and records altogether.
  std::pair<std::uint64_t, std::uint64_t> progress(std::string name = "billing") {
    std::uint64_t acked = 0;
    std::uint64_t end = 0;
    for (const auto& f : floors(std::move(name))) {
      acked += f.acked_below;
      end += f.end;
    }
    return {acked, end};
  }

  std::unique_ptr<EventLogBed> bed_;
};

// --- features: what is declared is there, and what is not declared is not. The properties are for
// docs/reference/capabilities.md ---

TEST_P(EventLogSuite, FeaturesAreDeclared) {
  const LogFeatures& features = log().features();
  RecordProperty("feature.durability", std::string(to_string(features.durability)));
  RecordProperty("feature.max_record_bytes", std::to_string(features.max_record_bytes));
  EXPECT_GE(features.max_record_bytes, 64UL << 10);
}

TEST_P(EventLogSuite, ARepeatedRecordIsDroppedOnlyIfThatIsDeclared) {
  const bool declared = log().features().deduplicates;
  RecordProperty("feature.deduplicates", declared ? "yes" : "no");
  make_topic("orders", 1);
  const Record first = record("a", "1");
  append(log(), Batch<Record>(1, first));
  append(log(), Batch<Record>(1, first));
  append({{"a", "2"}});
  auto r = reader();
  const auto all = read(*r, declared ? 2 : 3);
  EXPECT_EQ(bodies(all), declared ? (std::vector<std::string>{"1", "2"}) : (std::vector<std::string>{"1", "1", "2"}));
  EXPECT_TRUE(at_end(*r));
}

TEST_P(EventLogSuite, AttemptsOutliveTheirConsumerOnlyIfThatIsDeclared) {
  const bool declared = log().features().persists_attempts;
  RecordProperty("feature.persists_attempts", declared ? "yes" : "no");
  make_topic();
  append({{"a", "1"}});
  for (std::uint32_t round = 1; round <= 3; ++round) {
    auto c = join(log(), group());
    const auto got = receive(*c, 1);
    EXPECT_THAT(attempts(got), ::testing::ElementsAre(declared ? round : 1U));
    if (round == 3) must_ack(*c, got);
    close(*c);
    bed_->restart();
  }
}

// --- topics ---

TEST_P(EventLogSuite, TopicsAreMadeOnce) {
  const auto made = make_topic("orders", 3);
  EXPECT_EQ(made.name, "orders");
  EXPECT_EQ(made.partitions, 3U);
  EXPECT_NE(made.incarnation, Id128{});
  EXPECT_GT(made.max_record_bytes, 0U);
  const auto again = make_topic("orders", 5);
  EXPECT_EQ(again.partitions, 3U);
  EXPECT_EQ(again.incarnation, made.incarnation);
  const auto second = make_topic("invoices");
  EXPECT_NE(second.incarnation, made.incarnation);
  EXPECT_GE(second.partitions, 1U);
  auto seen = run_blocking(other().topic(soon(), "orders"));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->incarnation, made.incarnation);
  auto all = run_blocking(other().topics(soon()));
  ASSERT_TRUE(all);
  std::set<std::string> names;
  for (const auto& t : *all) names.insert(t.name);
  EXPECT_THAT(names, ::testing::IsSupersetOf({"orders", "invoices"}));
  bed_->restart();
  EXPECT_EQ(make_topic("orders").incarnation, made.incarnation);
}

TEST_P(EventLogSuite, WhatIsNotThereIsSaid) {
  const auto reason = [](auto&& result) { return result ? std::string("ok") : result.error().reason; };
  EXPECT_EQ(reason(run_blocking(log().topic(soon(), "none"))), "TOPIC_NOT_FOUND");
  EXPECT_EQ(reason(try_append(log(), records({{"a", "1"}}), "none").at(0)), "TOPIC_NOT_FOUND");
  EXPECT_EQ(reason(run_blocking(log().read(soon(), "none", {}, {}))), "TOPIC_NOT_FOUND");
  GroupSpec spec = group();
  spec.topic = "none";
  EXPECT_EQ(reason(run_blocking(log().join(soon(), spec))), "TOPIC_NOT_FOUND");
  EXPECT_EQ(reason(run_blocking(log().groups(soon(), "none"))), "TOPIC_NOT_FOUND");
  EXPECT_EQ(reason(run_blocking(log().floors(soon(), "none", "g"))), "TOPIC_NOT_FOUND");
  EXPECT_EQ(reason(run_blocking(log().seek(soon(), "none", "g", {}))), "TOPIC_NOT_FOUND");
  EXPECT_EQ(reason(run_blocking(log().end(soon(), "none"))), "TOPIC_NOT_FOUND");
}

TEST_P(EventLogSuite, ATopicMadeAgainIsAnotherSource) {
  make_topic();
  const auto before = append({{"a", "1"}}).at(0);
  bed_->recreate();
  make_topic();
  EXPECT_EQ(run_blocking(log().topics(soon()))->size(), 1U);
  const auto after = append({{"a", "1"}}).at(0);
  EXPECT_NE(before.parts().at(0).source, after.parts().at(0).source);
  EXPECT_EQ(before.compare(after), Position::Order::unknown);
}

// --- append ---

// proves: A-10
TEST_P(EventLogSuite, AppendAnswersEachRecord) {
  const auto info = make_topic("orders", 1);
  const auto results = try_append(log(), records({{"a", "1"}, {"b", "2"}, {"a", "3"}}));
  for (std::size_t i = 0; i < results.size(); ++i) {
    ASSERT_TRUE(results[i]);
    const auto& parts = results[i]->at.parts();
    ASSERT_EQ(parts.size(), 1U);
    EXPECT_EQ(parts[0].source, info.incarnation);
    EXPECT_EQ(parts[0].offset, i);
    EXPECT_EQ(results[i]->durability, log().features().durability);
    EXPECT_FALSE(results[i]->duplicate);
  }
  EXPECT_EQ(append({{"c", "4"}}).at(0).parts().at(0).offset, 3U);
  EXPECT_TRUE(try_append(log(), {}).empty());
}

TEST_P(EventLogSuite, RecordsComeBackExactly) {
  make_topic();
  const auto before = wall_now();
  Record r = record("key", std::string("\0\xff\n body", 9));
  r.headers = {{"prism-a", Bytes("1")},
               {"b", Bytes(std::string("\0\x01", 2))},
               {"b", Bytes("again")},
               {"", Bytes("")},
               {"empty", Bytes()}};
  Record bare;
  Record big = record("big", std::string(700000, 'x'));
  const std::string id = r.id;
  const auto headers = r.headers;
  append(log(), {r, bare, big});
  bed_->restart();
  auto from = reader();
  auto all = read(*from, 3, 4UL << 20);
  ASSERT_EQ(all.size(), 3U);
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first.key < b.first.key; });
  EXPECT_EQ(all[0].first.id, "");
  EXPECT_EQ(all[0].first.body.size(), 0U);
  EXPECT_TRUE(all[0].first.headers.empty());
  EXPECT_EQ(all[1].first.body, big.body);
  EXPECT_EQ(all[2].first.id, id);
  EXPECT_EQ(all[2].first.key, "key");
  EXPECT_EQ(all[2].first.headers, headers);
  EXPECT_EQ(all[2].first.body, std::string_view("\0\xff\n body", 9));
  for (const auto& [rec, at] : all) {
    EXPECT_GE(rec.time, before - std::chrono::seconds(5));
    EXPECT_LE(rec.time, wall_now() + std::chrono::seconds(5));
  }
}

TEST_P(EventLogSuite, ATooLargeRecordFailsTheLaterOnesOfItsKey) {
  const auto info = make_topic();
  Batch<Record> batch = records({{"a", "1"}, {"a", ""}, {"a", "3"}, {"b", "4"}, {"", "5"}, {"", ""}, {"", "7"}});
  batch[1].body = batch[5].body = Bytes(std::string(info.max_record_bytes + 1, 'x'));
  auto results = try_append(log(), std::move(batch));
  EXPECT_TRUE(results[0]);
  EXPECT_EQ(results[1].error().reason, "RECORD_TOO_LARGE");
  EXPECT_EQ(results[2].error().reason, "EARLIER_MESSAGE_FAILED");
  EXPECT_TRUE(results[3]);
  EXPECT_TRUE(results[4]);
  EXPECT_EQ(results[5].error().reason, "RECORD_TOO_LARGE");
  EXPECT_TRUE(results[6]);
  auto from = reader();
  EXPECT_THAT(bodies(read(*from, 4)), ::testing::UnorderedElementsAre("1", "4", "5", "7"));
  // Of the largest size it is taken.
  Record largest = record("k", "");
  largest.body = Bytes(std::string(info.max_record_bytes - largest.id.size() - largest.key.size(), 'y'));
  EXPECT_TRUE(try_append(log(), {largest}).at(0));
}

TEST_P(EventLogSuite, KeysKeepTheirOrder) {
  make_topic();
  constexpr int kKeys = 20;
  constexpr int kEach = 30;
  for (int b = 0; b < 3; ++b) {
    Batch<Record> batch;
    for (int i = 0; i < kEach / 3; ++i) {
      for (int k = 0; k < kKeys; ++k)
        batch.push_back(record("key" + std::to_string(k), std::to_string(b * (kEach / 3) + i)));
    }
    append(log(), std::move(batch));
  }
  auto from = reader();
  std::map<std::string, int> next;
  std::set<std::uint32_t> partitions;
  for (const auto& [r, at] : read(*from, kKeys * kEach)) {
    EXPECT_EQ(r.body.str(), std::to_string(next[r.key]++)) << r.key;
    partitions.insert(at.parts().at(0).partition);
  }
  EXPECT_EQ(next.size(), static_cast<std::size_t>(kKeys));
  EXPECT_TRUE(at_end(*from));
}

TEST_P(EventLogSuite, ManyAppendersLoseNothing) {
  make_topic();
  constexpr int kThreads = 4;
  constexpr int kBatches = 25;
  constexpr int kBatch = 8;
  std::vector<std::vector<Position>> positions(kThreads);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int b = 0; b < kBatches; ++b) {
          Batch<Record> batch;
          for (int i = 0; i < kBatch; ++i)
            batch.push_back(record("k" + std::to_string(t), std::to_string(b * kBatch + i)));
          for (auto& at : append(t % 2 == 0 ? log() : other(), std::move(batch))) positions[t].push_back(std::move(at));
        }
      });
    }
  }
  std::set<std::pair<std::uint32_t, std::uint64_t>> distinct;
  for (const auto& of_thread : positions) {
    for (const auto& at : of_thread) distinct.emplace(at.parts().at(0).partition, at.parts().at(0).offset);
  }
  EXPECT_EQ(distinct.size(), static_cast<std::size_t>(kThreads * kBatches * kBatch));
  auto from = reader();
  std::map<std::string, int> next;
  for (const auto& [r, at] : read(*from, distinct.size()))
    EXPECT_EQ(r.body.str(), std::to_string(next[r.key]++)) << r.key;
}

// --- readers ---

TEST_P(EventLogSuite, ReadersBeginWhereTheyAreTold) {
  make_topic("orders", 1);
  const auto first = append({{"a", "1"}, {"a", "2"}, {"a", "3"}});
  auto earliest = reader();
  EXPECT_EQ(bodies(read(*earliest, 3)), (std::vector<std::string>{"1", "2", "3"}));
  auto after_first = reader({first[0]});
  EXPECT_EQ(bodies(read(*after_first, 2)), (std::vector<std::string>{"2", "3"}));
  auto latest = reader({Latest{}});
  EXPECT_TRUE(at_end(*latest));
  append({{"a", "4"}});
  EXPECT_EQ(bodies(read(*latest, 1)), (std::vector<std::string>{"4"}));
  EXPECT_EQ(bodies(read(*earliest, 1)), (std::vector<std::string>{"4"}));
}

TEST_P(EventLogSuite, ReadersBeginAtATime) {
  make_topic("orders", 2);
  for (int i = 0; i < 10; ++i) append(log(), {record("a", std::to_string(i)), record("b", std::to_string(i))});
  auto all = reader();
  const auto records = read(*all, 20);
  const WallTime from = records[11].first.time;
  std::size_t expected = 0;
  for (const auto& [r, at] : records) expected += r.time >= from ? 1 : 0;
  auto later = reader({from});
  const auto got = read(*later, expected);
  EXPECT_EQ(got.size(), expected);
  for (const auto& [r, at] : got) EXPECT_GE(r.time, from);
  EXPECT_TRUE(at_end(*later));
  auto never = reader({wall_now() + std::chrono::hours(1)});
  EXPECT_TRUE(at_end(*never));
  auto always = reader({WallTime()});
  EXPECT_EQ(read(*always, 20).size(), 20U);
}

TEST_P(EventLogSuite, ReadersOfOnePartitionSeeNoOther) {
  make_topic("orders", 4);
  Batch<Record> batch;
  for (int i = 0; i < 40; ++i) batch.push_back(record("k" + std::to_string(i), "x"));
  std::map<std::uint32_t, std::size_t> count;
  for (const auto& at : append(log(), std::move(batch))) ++count[at.parts().at(0).partition];
  for (std::uint32_t p = 0; p < 4; ++p) {
    auto one = reader({}, p);
    for (const auto& [r, at] : read(*one, count[p])) EXPECT_EQ(at.parts().at(0).partition, p);
    EXPECT_TRUE(at_end(*one));
  }
  EXPECT_FALSE(run_blocking(log().read(soon(), "orders", 4, {})));
}

TEST_P(EventLogSuite, ReadersAreBoundedByBytes) {
  make_topic("orders", 1);
  Batch<Record> batch;
  for (int i = 0; i < 10; ++i) batch.push_back(record("a", std::string(10000, 'x')));
  append(log(), std::move(batch));
  auto from = reader();
  auto some = run_blocking(from->next(soon(), 35000));
  ASSERT_TRUE(some);
  EXPECT_GE(some->size(), 1U);
  EXPECT_LE(some->size(), 3U);
  EXPECT_EQ(run_blocking(from->next(soon(), 1))->size(), 1U);  // one is always given
}

TEST_P(EventLogSuite, ReadersWaitForWhatComes) {
  make_topic();
  auto from = reader();
  std::jthread appender([&] { append(log(), records({{"a", "1"}})); });
  EXPECT_EQ(bodies(read(*from, 1)), (std::vector<std::string>{"1"}));
  appender.join();
  appender = std::jthread([&] { append(other(), records({{"a", "2"}})); });
  EXPECT_EQ(bodies(read(*from, 1)), (std::vector<std::string>{"2"}));
}

// Reading keeps up with appending, at every moment: no record is passed by because it was committed between two steps
// of a read.
TEST_P(EventLogSuite, NothingIsPassedByWhileItIsAppended) {
  make_topic();
  constexpr int kThreads = 3;
  constexpr int kBatches = 150;
  constexpr std::size_t kAll = kThreads * kBatches * 4;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int b = 0; b < kBatches; ++b) {
        Batch<Record> batch;
        for (int i = 0; i < 4; ++i) batch.push_back(record("k" + std::to_string(b % 16), std::to_string(t)));
        append(t == 0 ? other() : log(), std::move(batch));
      }
    });
  }
  threads.emplace_back([&] {
    auto from = reader();
    std::set<std::pair<std::uint32_t, std::uint64_t>> distinct;
    for (const auto& [r, at] : read(*from, kAll, 2000))
      distinct.emplace(at.parts().at(0).partition, at.parts().at(0).offset);
    EXPECT_EQ(distinct.size(), kAll);
  });
  auto c = join(log(), group());
  std::set<std::pair<std::uint32_t, std::uint64_t>> distinct;
  while (distinct.size() < kAll) {
    auto got = run_blocking(c->receive(soon(), 20, 1UL << 20));
    ASSERT_TRUE(got && !got->empty()) << distinct.size();
    for (const auto& d : *got) distinct.emplace(d.at.parts().at(0).partition, d.at.parts().at(0).offset);
    must_ack(*c, *got);
  }
  close(*c);
}

TEST_P(EventLogSuite, AWaitingReaderCanBeStopped) {
  make_topic();
  auto from = reader();
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  auto r = run_blocking(from->next(Context::background(stop.get_token()), 1000));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::cancelled);
  append({{"a", "1"}});
  EXPECT_EQ(bodies(read(*from, 1)), (std::vector<std::string>{"1"}));  // it is none the worse for it
}

TEST_P(EventLogSuite, EndIsThePositionOfTheLastRecords) {
  make_topic();
  EXPECT_TRUE(run_blocking(log().end(soon(), "orders"))->empty());
  Position all;
  for (const auto& at : append({{"a", "1"}, {"b", "2"}, {"c", "3"}, {"a", "4"}})) all.merge(at);
  auto end = run_blocking(other().end(soon(), "orders"));
  ASSERT_TRUE(end);
  EXPECT_EQ(*end, all);
  EXPECT_EQ(all.compare(*end), Position::Order::reached);
  const auto later = append({{"a", "5"}}).at(0);
  EXPECT_EQ(later.compare(*end), Position::Order::behind);
  make_topic("invoices");
  const auto elsewhere = append(log(), records({{"a", "1"}}), "invoices").at(0);
  EXPECT_EQ(elsewhere.compare(*end), Position::Order::unknown);
}

// --- groups ---

TEST_P(EventLogSuite, EveryGroupGetsEveryRecord) {
  make_topic();
  append({{"a", "1"}, {"b", "2"}, {"a", "3"}});
  for (const char* name : {"billing", "audit"}) {
    auto c = join(log(), group(name));
    const auto got = receive(*c, 3);
    EXPECT_THAT(bodies(got), ::testing::UnorderedElementsAre("1", "2", "3"));
    EXPECT_THAT(attempts(got), ::testing::Each(1U));
    must_ack(*c, got);
    EXPECT_EQ(progress(name), (std::pair<std::uint64_t, std::uint64_t>(3, 3)));
    EXPECT_TRUE(nothing_for(*c));
    close(*c);
  }
  auto names = run_blocking(other().groups(soon(), "orders"));
  ASSERT_TRUE(names);
  EXPECT_THAT(*names, ::testing::UnorderedElementsAre("billing", "audit"));
}

TEST_P(EventLogSuite, AcknowledgementsSurviveARestart) {
  make_topic();
  append({{"a", "1"}, {"b", "2"}, {"c", "3"}, {"d", "4"}});
  {
    auto c = join(log(), group());
    auto got = receive(*c, 4);
    std::sort(got.begin(), got.end(),
              [](const auto& a, const auto& b) { return a.record.body.view() < b.record.body.view(); });
    EXPECT_EQ(settle_one(*c, got[1]), Settled::ok);  // in any order
    EXPECT_EQ(settle_one(*c, got[3]), Settled::ok);
    close(*c);
  }
  bed_->restart();
  auto c = join(log(), group());
  const auto got = receive(*c, 2);
  EXPECT_THAT(bodies(got), ::testing::UnorderedElementsAre("1", "3"));
  if (log().features().persists_attempts) {
    EXPECT_THAT(attempts(got), ::testing::Each(2U));
  }
  must_ack(*c, got);
  EXPECT_TRUE(nothing_for(*c));
  EXPECT_EQ(progress(), (std::pair<std::uint64_t, std::uint64_t>(4, 4)));
  close(*c);
}

TEST_P(EventLogSuite, AGroupGoesOnWhereItWas) {
  make_topic("orders", 1);
  append({{"a", "1"}, {"a", "2"}});
  GroupSpec latest = group();
  latest.start = {Latest{}};
  {
    auto c = join(log(), latest);
    EXPECT_TRUE(nothing_for(*c));
    append({{"a", "3"}, {"a", "4"}});
    must_ack(*c, receive(*c, 1, 1));
    close(*c);
  }
  auto c = join(log(), group());  // its start is of no account any more
  EXPECT_EQ(bodies(receive(*c, 1)), (std::vector<std::string>{"4"}));
  close(*c);
}

TEST_P(EventLogSuite, AGroupBeginsAtAPositionOrTime) {
  make_topic("orders", 1);
  const auto at = append({{"a", "1"}, {"a", "2"}, {"a", "3"}});
  GroupSpec after = group("after");
  after.start = {at[1]};
  auto c = join(log(), after);
  EXPECT_EQ(bodies(receive(*c, 1)), (std::vector<std::string>{"3"}));
  close(*c);
  GroupSpec future = group("future");
  future.start = {wall_now() + std::chrono::hours(1)};
  auto f = join(log(), future);
  EXPECT_TRUE(nothing_for(*f));
  close(*f);
}

TEST_P(EventLogSuite, FloorsOfAGroupThatNeverWas) {
  make_topic("orders", 3);
  append({{"a", "1"}, {"b", "2"}});
  const auto none = floors("nobody");
  ASSERT_EQ(none.size(), 3U);
  std::uint64_t end = 0;
  for (std::uint32_t p = 0; p < 3; ++p) {
    EXPECT_EQ(none[p].partition, p);
    EXPECT_FALSE(none[p].ever_committed);
    EXPECT_EQ(none[p].acked_below, none[p].begin);
    end += none[p].end;
  }
  EXPECT_EQ(end, 2U);
  auto c = join(log(), group());
  for (const auto& f : floors()) EXPECT_TRUE(f.ever_committed);
  EXPECT_EQ(progress().first, 0U);
  close(*c);
  EXPECT_THAT(*run_blocking(log().groups(soon(), "orders")), ::testing::ElementsAre("billing"));  // asking makes none
}

TEST_P(EventLogSuite, FloorsStayBelowWhatIsNotAcknowledged) {
  make_topic("orders", 1);
  append({{"a", "1"}, {"b", "2"}, {"c", "3"}});
  auto c = join(log(), group());
  const auto got = receive(*c, 3);
  EXPECT_EQ(settle_one(*c, got[1]), Settled::ok);
  EXPECT_EQ(floors().at(0).acked_below, 0U);
  EXPECT_EQ(settle_one(*c, got[0]), Settled::ok);
  EXPECT_EQ(floors().at(0).acked_below, 2U);
  EXPECT_EQ(settle_one(*c, got[2]), Settled::ok);
  EXPECT_EQ(floors().at(0).acked_below, 3U);
  close(*c);
}

TEST_P(EventLogSuite, ANackDeliversAgain) {
  make_topic("orders", 1);
  append({{"", "1"}, {"", "2"}});
  auto c = join(log(), group());
  const auto first = receive(*c, 2);
  EXPECT_EQ(settle_one(*c, first[0], Settle::Do::nack), Settled::ok);
  const auto again = receive(*c, 1);
  EXPECT_EQ(again[0].record.body, "1");
  EXPECT_EQ(again[0].record.id, first[0].record.id);
  EXPECT_EQ(again[0].attempt, 2U);
  EXPECT_NE(again[0].token, first[0].token);
  EXPECT_EQ(settle_one(*c, first[0]), Settled::stale);
  EXPECT_EQ(settle_one(*c, first[0], Settle::Do::nack), Settled::stale);
  EXPECT_EQ(settle_one(*c, again[0]), Settled::ok);
  EXPECT_EQ(settle_one(*c, first[1]), Settled::ok);  // without a key, nobody else is concerned
  EXPECT_EQ(progress().first, 2U);
  close(*c);
}

TEST_P(EventLogSuite, ANackMayBeDelayed) {
  make_topic("orders", 1);
  append({{"a", "1"}, {"a", "2"}, {"b", "3"}});
  auto c = join(log(), group());
  const auto first = receive(*c, 3);
  const auto before = Clock::now();
  constexpr auto kDelay = std::chrono::milliseconds(150);
  EXPECT_EQ(settle_one(*c, first[0], Settle::Do::nack, kDelay), Settled::ok);
  EXPECT_TRUE(nothing_for(*c));
  append({{"b", "4"}});
  EXPECT_EQ(bodies(receive(*c, 1)), (std::vector<std::string>{"4"}));  // another key does not wait
  const auto again = receive(*c, 2);
  EXPECT_GE(Clock::now() - before, kDelay);
  EXPECT_EQ(bodies(again), (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(attempts(again), (std::vector<std::uint32_t>{2, 2}));
  close(*c);
}

TEST_P(EventLogSuite, ANackReplaysTheLaterOnesOfItsKeyOnly) {
  make_topic("orders", 1);
  append({{"a", "a1"}, {"b", "b1"}, {"a", "a2"}, {"b", "b2"}, {"a", "a3"}});
  auto c = join(log(), group());
  const auto first = receive(*c, 5);
  EXPECT_EQ(bodies(first), (std::vector<std::string>{"a1", "b1", "a2", "b2", "a3"}));
  EXPECT_EQ(settle_one(*c, first[2], Settle::Do::nack), Settled::ok);
  EXPECT_EQ(settle_one(*c, first[4]), Settled::stale);  // void since its predecessor came back
  EXPECT_EQ(settle_one(*c, first[0]), Settled::ok);
  EXPECT_EQ(settle_one(*c, first[1]), Settled::ok);
  EXPECT_EQ(settle_one(*c, first[3]), Settled::ok);
  append({{"a", "a4"}});
  const auto again = receive(*c, 3);
  EXPECT_EQ(bodies(again), (std::vector<std::string>{"a2", "a3", "a4"}));
  EXPECT_EQ(attempts(again), (std::vector<std::uint32_t>{2, 2, 1}));
  must_ack(*c, again);
  EXPECT_EQ(progress(), (std::pair<std::uint64_t, std::uint64_t>(6, 6)));
  close(*c);
}

TEST_P(EventLogSuite, TheDeadlineDeliversAgain) {
  make_topic("orders", 1);
  append({{"a", "1"}, {"a", "2"}, {"b", "3"}});
  auto c = join(log(), impatient(std::chrono::milliseconds(80)));
  const auto before = Clock::now();
  const auto first = receive(*c, 3);
  EXPECT_EQ(settle_one(*c, first[2]), Settled::ok);
  const auto again = receive(*c, 2);
  EXPECT_GE(Clock::now() - before, std::chrono::milliseconds(80));
  EXPECT_EQ(bodies(again), (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(attempts(again), (std::vector<std::uint32_t>{2, 2}));
  EXPECT_EQ(settle_one(*c, first[0]), Settled::stale);
  const auto third = receive(*c, 2);
  EXPECT_EQ(attempts(third), (std::vector<std::uint32_t>{3, 3}));
  close(*c);
}

TEST_P(EventLogSuite, ExtendingKeepsADelivery) {
  make_topic("orders", 1);
  append({{"", "1"}, {"", "2"}});
  auto c = join(log(), impatient(std::chrono::milliseconds(60)));
  const auto first = receive(*c, 2);
  EXPECT_EQ(settle_one(*c, first[0], Settle::Do::extend, std::chrono::hours(1)), Settled::ok);
  const auto again = receive(*c, 1);
  EXPECT_EQ(again[0].record.body, "2");
  EXPECT_EQ(settle_one(*c, first[0]), Settled::ok);
  EXPECT_EQ(settle_one(*c, first[1], Settle::Do::extend, std::chrono::hours(1)), Settled::stale);
  close(*c);
}

TEST_P(EventLogSuite, TokensThatMeanNothingAreInvalid) {
  make_topic("orders", 1);
  append({{"a", "1"}});
  auto c = join(log(), group());
  auto other_group = join(log(), group("audit"));
  const auto mine = receive(*c, 1);
  const auto theirs = receive(*other_group, 1);
  for (const auto what : {Settle::Do::ack, Settle::Do::nack, Settle::Do::extend}) {
    for (const std::string& token :
         {std::string(), std::string("nonsense"), std::string(40, '\xff'), std::string(5, '\0')}) {
      EXPECT_EQ(run_blocking(c->settle(soon(), Batch<Settle>(1, Settle{token, what, {}, ""}))).at(0), Settled::invalid);
    }
  }
  EXPECT_EQ(settle_one(*c, theirs[0]), Settled::invalid);
  EXPECT_EQ(settle_one(*c, mine[0]), Settled::ok);
  EXPECT_EQ(settle_one(*c, mine[0]), Settled::stale);
  EXPECT_TRUE(run_blocking(c->settle(soon(), {})).empty());
  close(*c);
  close(*other_group);
}

TEST_P(EventLogSuite, ABatchOfSettlesIsAnsweredOneByOne) {
  make_topic("orders", 1);
  append({{"", "1"}, {"", "2"}, {"", "3"}});
  auto c = join(log(), group());
  const auto got = receive(*c, 3);
  Batch<Settle> settles = {settle(got[0], Settle::Do::ack),
                           settle(got[0], Settle::Do::ack),
                           {"x", Settle::Do::ack, {}, ""},
                           settle(got[1], Settle::Do::nack, std::chrono::hours(1)),
                           settle(got[2], Settle::Do::extend, std::chrono::hours(1))};
  EXPECT_THAT(run_blocking(c->settle(soon(), std::move(settles))),
              ::testing::ElementsAre(Settled::ok, Settled::stale, Settled::invalid, Settled::ok, Settled::ok));
  close(*c);
}

TEST_P(EventLogSuite, AKeyHasABoundedRunInFlight) {
  make_topic("orders", 1);
  Batch<Record> batch;
  for (int i = 0; i < 10; ++i) batch.push_back(record("hot", std::to_string(i)));
  batch.push_back(record("cold", "c"));
  append(log(), std::move(batch));
  GroupSpec spec = group();
  spec.max_per_key = 3;
  auto c = join(log(), spec);
  std::vector<std::string> hot;
  auto got = receive(*c, 4);
  EXPECT_EQ(bodies(got), (std::vector<std::string>{"0", "1", "2", "c"}));
  EXPECT_TRUE(nothing_for(*c));
  for (int next = 3; next < 10;) {
    must_ack(*c, got);
    got = receive(*c, std::min(3, 10 - next));
    for (const auto& d : got) EXPECT_EQ(d.record.body.str(), std::to_string(next++));
  }
  must_ack(*c, got);
  EXPECT_EQ(progress(), (std::pair<std::uint64_t, std::uint64_t>(11, 11)));
  close(*c);
}

TEST_P(EventLogSuite, BytesInFlightAreBounded) {
  make_topic("orders", 1);
  Batch<Record> batch;
  for (int i = 0; i < 6; ++i) batch.push_back(record("", std::string(10000, static_cast<char>('0' + i))));
  append(log(), std::move(batch));
  GroupSpec spec = group();
  spec.max_bytes = 25000;
  auto c = join(log(), spec);
  auto got = receive(*c, 2);
  EXPECT_TRUE(nothing_for(*c));
  EXPECT_EQ(settle_one(*c, got[0]), Settled::ok);
  auto next = receive(*c, 1);
  EXPECT_EQ(next[0].record.body.view().front(), '2');
  EXPECT_TRUE(nothing_for(*c));
  must_ack(*c, {got[1], next[0]});
  close(*c);
  GroupSpec tiny = group("tiny");
  tiny.max_bytes = 10;
  auto t = join(log(), tiny);
  const auto one = receive(*t, 1);  // one is always given
  EXPECT_TRUE(nothing_for(*t));
  must_ack(*t, one);
  EXPECT_EQ(receive(*t, 1)[0].record.body.view().front(), '1');
  close(*t);
}

TEST_P(EventLogSuite, AReceiveIsBounded) {
  make_topic();
  Batch<Record> batch;
  for (int i = 0; i < 20; ++i) batch.push_back(record("k" + std::to_string(i), std::string(1000, 'x')));
  append(log(), std::move(batch));
  auto c = join(log(), group());
  EXPECT_EQ(run_blocking(c->receive(soon(), 3, 1UL << 20))->size(), 3U);
  EXPECT_EQ(run_blocking(c->receive(soon(), 100, 1))->size(), 1U);
  const auto by_bytes = run_blocking(c->receive(soon(), 100, 5200))->size();
  EXPECT_GE(by_bytes, 1U);
  EXPECT_LE(by_bytes, 5U);
  receive(*c, 16 - by_bytes);
  EXPECT_TRUE(nothing_for(*c));
  close(*c);
}

TEST_P(EventLogSuite, AWaitingReceiveIsWokenByAnAppend) {
  make_topic();
  auto c = join(log(), group());
  std::jthread appender([&] { append(log(), records({{"a", "1"}})); });
  must_ack(*c, receive(*c, 1));
  appender.join();
  appender = std::jthread([&] { append(other(), records({{"a", "2"}})); });
  EXPECT_EQ(bodies(receive(*c, 1)), (std::vector<std::string>{"2"}));
  close(*c);
}

TEST_P(EventLogSuite, AWaitingReceiveCanBeStopped) {
  make_topic();
  auto c = join(log(), group());
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  auto r = run_blocking(c->receive(Context::background(stop.get_token()), 10, 1000));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::cancelled);
  append({{"a", "1"}});
  EXPECT_EQ(bodies(receive(*c, 1)), (std::vector<std::string>{"1"}));
  std::jthread closer([&] { close(*c); });
  EXPECT_EQ(run_blocking(c->receive(soon(), 10, 1000)).error().reason, "CONSUMER_CLOSED");
}

TEST_P(EventLogSuite, ClosingGivesBackAtOnce) {
  make_topic();
  append({{"a", "1"}, {"b", "2"}, {"c", "3"}});
  auto first = join(log(), group());
  const auto held = receive(*first, 3);
  auto second = join(other(), group());
  close(*first);
  EXPECT_THAT(ack(*first, held), ::testing::Each(Settled::stale));
  const auto got = receive(*second, 3);
  EXPECT_THAT(bodies(got), ::testing::UnorderedElementsAre("1", "2", "3"));
  if (log().features().persists_attempts) {
    EXPECT_THAT(attempts(got), ::testing::Each(2U));
  }
  must_ack(*second, got);
  close(*second);
}

TEST_P(EventLogSuite, ADeadConsumerIsReplaced) {
  make_topic();
  append({{"a", "1"}, {"b", "2"}, {"c", "3"}});
  auto dead = join(bed_->dying(), group());
  const auto held = receive(*dead, 3);
  auto heir = join(log(), group());
  const auto got = receive(*heir, 3);  // waits for the other's session to end
  EXPECT_THAT(bodies(got), ::testing::UnorderedElementsAre("1", "2", "3"));
  // It was only asleep, and goes on: nothing is changed by it.
  EXPECT_THAT(ack(*dead, held), ::testing::Each(Settled::stale));
  EXPECT_EQ(progress().first, 0U);
  must_ack(*heir, got);
  EXPECT_EQ(progress(), (std::pair<std::uint64_t, std::uint64_t>(3, 3)));
  close(*heir);
}

// Consumers come and go in two processes while records are appended: none is lost, and each key's first occurrences are
// in order.
TEST_P(EventLogSuite, RebalancingLosesNothing) {
  make_topic();
  constexpr int kKeys = 12;
  std::atomic<int> consumers_with_work = 0;
  std::atomic<int> each = 0;  // records of a key
  std::atomic<bool> appended = false;
  std::jthread producer([&] {
    const auto end = Clock::now() + std::chrono::seconds(60);
    for (; each < 60 || (consumers_with_work < 2 && Clock::now() < end); ++each) {
      Batch<Record> batch;
      for (int k = 0; k < kKeys; ++k) batch.push_back(record("k" + std::to_string(k), std::to_string(each)));
      append(log(), std::move(batch));
    }
    appended = true;
  });
  struct Seen {
    int next = 0;  // the first delivery of each comes in order
    std::vector<int> acked;
  };
  std::mutex mutex;
  std::map<std::string, Seen> seen;  // by key; guarded by mutex
  const auto done = [&] {
    if (!appended) return false;
    const auto [acked, end] = progress();
    return acked == end;
  };
  const auto consume = [&](EventLog& via, int rounds) {
    auto c = join(via, group());
    bool any = false;
    for (int round = 0; rounds == 0 ? !done() : round < rounds; ++round) {
      auto got = run_blocking(c->receive(Context().with_timeout(std::chrono::milliseconds(20)), 50, 1UL << 20));
      ASSERT_TRUE(got);
      if (got->empty()) continue;
      {
        const std::lock_guard lock(mutex);
        for (const auto& d : *got) {
          Seen& of_key = seen[d.record.key];
          const int number = std::stoi(d.record.body.str());
          EXPECT_LE(number, of_key.next) << d.record.key;
          of_key.next = std::max(of_key.next, number + 1);
        }
      }
      const auto results = ack(*c, *got);
      const std::lock_guard lock(mutex);
      for (std::size_t i = 0; i < got->size(); ++i) {
        if (results[i] == Settled::ok)
          seen[(*got)[i].record.key].acked.push_back(std::stoi((*got)[i].record.body.str()));
      }
      if (!any) ++consumers_with_work;
      any = true;
    }
    close(*c);
  };
  std::jthread steady([&] { consume(log(), 0); });
  std::jthread guest([&] {
    for (int i = 0; i < 4; ++i) consume(other(), 15);
  });
  std::jthread second([&] { consume(other(), 0); });
  for (std::jthread* t : {&producer, &steady, &guest, &second}) t->join();
  EXPECT_GE(consumers_with_work, 2);
  for (int k = 0; k < kKeys; ++k) {
    const auto& acked = seen["k" + std::to_string(k)].acked;
    const std::set<int> distinct(acked.begin(), acked.end());
    EXPECT_EQ(distinct.size(), static_cast<std::size_t>(each.load())) << k;
    EXPECT_EQ(acked.size(), distinct.size()) << "acknowledged twice: key " << k;
  }
}

TEST_P(EventLogSuite, PartitionsAreSharedFairly) {
  make_topic("orders", 4);
  auto a = join(log(), group());
  auto b = join(other(), group());
  // Until both have their share: each partition's record comes to its owner.
  std::map<std::uint32_t, int> owner;
  const auto end = Clock::now() + std::chrono::seconds(60);
  while (Clock::now() < end) {
    owner.clear();
    Batch<Record> batch;
    for (int k = 0; k < 64; ++k) batch.push_back(record("k" + std::to_string(k), "x"));
    append(log(), std::move(batch));
    bool torn = false;
    for (auto& [c, number] : {std::pair(a.get(), 0), std::pair(b.get(), 1)}) {
      for (auto got = run_blocking(c->receive(Context().with_timeout(std::chrono::milliseconds(10)), 1000, 1UL << 20));
           got && !got->empty(); got = run_blocking(c->receive(now(), 1000, 1UL << 20))) {
        for (const auto& d : *got) {
          const auto [it, fresh] = owner.emplace(d.at.parts().at(0).partition, number);
          torn = torn || it->second != number;
        }
        ack(*c, *got);
      }
    }
    const auto of_a = std::count_if(owner.begin(), owner.end(), [](const auto& o) { return o.second == 0; });
    if (!torn && owner.size() == 4 && of_a == 2) break;
  }
  EXPECT_EQ(owner.size(), 4U);
  EXPECT_EQ(std::count_if(owner.begin(), owner.end(), [](const auto& o) { return o.second == 0; }), 2);
  close(*a);
  close(*b);
}

TEST_P(EventLogSuite, SeekMovesAGroupAndItsConsumers) {
  make_topic("orders", 1);
  const auto at = append({{"a", "1"}, {"a", "2"}, {"a", "3"}});
  auto c = join(log(), group());
  must_ack(*c, receive(*c, 3));
  ASSERT_TRUE(run_blocking(log().seek(soon(), "orders", "billing", {at[0]})));
  EXPECT_EQ(floors().at(0).acked_below, 1U);
  auto got = receive(*c, 2);
  EXPECT_EQ(bodies(got), (std::vector<std::string>{"2", "3"}));
  EXPECT_EQ(attempts(got), (std::vector<std::uint32_t>{1, 1}));
  ASSERT_TRUE(
      run_blocking(other().seek(soon(), "orders", "billing", {})));  // by another process, with deliveries under way
  got = receive(*c, 3);
  EXPECT_EQ(bodies(got), (std::vector<std::string>{"1", "2", "3"}));
  ASSERT_TRUE(run_blocking(log().seek(soon(), "orders", "billing", {Latest{}})));
  EXPECT_THAT(ack(*c, got), ::testing::Each(Settled::stale));
  EXPECT_EQ(floors().at(0).acked_below, 3U);
  append({{"a", "4"}});
  EXPECT_EQ(bodies(receive(*c, 1)), (std::vector<std::string>{"4"}));
  close(*c);
  // A group may be placed before anybody joins it.
  ASSERT_TRUE(run_blocking(log().seek(soon(), "orders", "new", {at[1]})));
  auto fresh = join(log(), group("new"));
  EXPECT_EQ(bodies(receive(*fresh, 2)), (std::vector<std::string>{"3", "4"}));
  close(*fresh);
}

TEST_P(EventLogSuite, SeekToATime) {
  make_topic("orders", 1);
  append({{"a", "1"}});
  auto all = reader();
  const WallTime first = read(*all, 1)[0].first.time;
  while (wall_now() <= first + std::chrono::milliseconds(2)) std::this_thread::yield();
  append({{"a", "2"}});
  auto c = join(log(), group());
  must_ack(*c, receive(*c, 2));
  ASSERT_TRUE(run_blocking(log().seek(soon(), "orders", "billing", {first + std::chrono::milliseconds(1)})));
  EXPECT_EQ(bodies(receive(*c, 1)), (std::vector<std::string>{"2"}));
  close(*c);
}

TEST_P(EventLogSuite, MuchIsConsumedInOrder) {
  make_topic();
  constexpr int kRecords = 5000;
  for (int i = 0; i < kRecords; i += 500) {
    Batch<Record> batch;
    for (int k = i; k < i + 500; ++k) batch.push_back(record("k" + std::to_string(k % 37), std::to_string(k)));
    append(log(), std::move(batch));
  }
  auto c = join(log(), group());
  std::map<std::string, int> last;
  for (int n = 0; n < kRecords;) {
    auto got = run_blocking(c->receive(soon(), 700, 1UL << 20));
    ASSERT_TRUE(got && !got->empty());
    for (const auto& d : *got) {
      const int number = std::stoi(d.record.body.str());
      const auto it = last.find(d.record.key);
      EXPECT_TRUE(it == last.end() ? number < 37 : number == it->second + 37) << d.record.key;
      last[d.record.key] = number;
    }
    must_ack(*c, *got);
    n += static_cast<int>(got->size());
  }
  EXPECT_TRUE(nothing_for(*c));
  EXPECT_EQ(progress(), (std::pair<std::uint64_t, std::uint64_t>(kRecords, kRecords)));
  close(*c);
}

TEST_P(EventLogSuite, ADestroyedConsumerGivesBackToo) {
  make_topic();
  append({{"a", "1"}});
  auto first = join(log(), group());
  receive(*first, 1);
  first.reset();
  auto second = join(log(), group());
  EXPECT_EQ(bodies(receive(*second, 1)), (std::vector<std::string>{"1"}));
  close(*second);
}

}  // namespace prism
