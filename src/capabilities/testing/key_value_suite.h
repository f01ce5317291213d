// Conformance of KeyValueStore. Include it in one test file of a backend and instantiate KeyValueSuite there:
//   INSTANTIATE_TEST_SUITE_P(Sqlite, KeyValueSuite, ::testing::Values(KeyValueParam{"sqlite", make_bed}));
// proves: L-02, L-05, L-24
#pragma once

#include <gmock/gmock.h>

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "capabilities/key_value_store.h"
#include "runtime/scope.h"

namespace prism {

// An empty store and what surrounds it; destroyed at the end of a test.
class KeyValueBed {
 public:
  virtual ~KeyValueBed() = default;
  virtual KeyValueStore& store() = 0;
  virtual KeyValueStore& other() = 0;  // the same data through another client, as another process would have it
  virtual void restart() = 0;          // closes every client and opens them again on the same data
};

struct KeyValueParam {
  std::string name;
  std::function<std::unique_ptr<KeyValueBed>()> make;
  friend void PrintTo(const KeyValueParam& p, std::ostream* out) { *out << p.name; }
};

class KeyValueSuite : public ::testing::TestWithParam<KeyValueParam> {
 protected:
  void SetUp() override { bed_ = GetParam().make(); }
  KeyValueStore& store() { return bed_->store(); }
  KeyValueStore& other() { return bed_->other(); }

  static Context soon() { return Context().with_timeout(std::chrono::seconds(60)); }

  static Result<std::optional<Entry>> get(KeyValueStore& s, const std::string& key, Position min = {}) {
    auto out = run_blocking(s.get(soon(), Batch<std::string>(1, key), std::move(min)));
    EXPECT_EQ(out.size(), 1U);
    return std::move(out.at(0));
  }
  static Result<Written> apply(KeyValueStore& s, const Mutation& m) {
    auto out = run_blocking(s.apply(soon(), Batch<Mutation>(1, m)));
    EXPECT_EQ(out.size(), 1U);
    return std::move(out.at(0));
  }
  static Result<Written> set(KeyValueStore& s, std::string key, std::string value) {
    return apply(s, {.key = std::move(key), .value = Bytes(std::move(value))});
  }
  Version must_set(std::string key, std::string value) {
    const auto written = set(store(), std::move(key), std::move(value));
    EXPECT_TRUE(written) << written.error().describe();
    return written ? written->version : Version{};
  }
  // The value, or "<none>", or "<REASON>".
  static std::string value(KeyValueStore& s, std::string key, Position min = {}) {
    const auto got = get(s, std::move(key), std::move(min));
    if (!got) return "<" + got.error().reason + ">";
    return *got ? (*got)->value.str() : "<none>";
  }
  static std::string reason(const Result<Written>& r) { return r ? "ok" : r.error().reason; }
  static KeyPage scan(KeyValueStore& s, std::string prefix, std::string after = {}, std::size_t rows = 1000,
                      std::size_t bytes = 1UL << 20) {
    auto page = run_blocking(s.scan(soon(), std::move(prefix), std::move(after), rows, bytes));
    EXPECT_TRUE(page) << page.error().describe();
    return page ? std::move(*page) : KeyPage{};
  }
  static std::vector<std::string> keys(const KeyPage& page) {
    std::vector<std::string> out;
    for (const auto& [key, entry] : page.entries) out.push_back(key);
    return out;
  }
  // Reads until the entry has gone. True: within a minute.
  static bool goes_away(KeyValueStore& s, const std::string& key) {
    const auto end = Clock::now() + std::chrono::minutes(1);
    while (Clock::now() < end) {
      if (value(s, key) == "<none>") return true;
    }
    return false;
  }

  std::unique_ptr<KeyValueBed> bed_;
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(KeyValueSuite);

TEST_P(KeyValueSuite, FeaturesAreDeclared) {
  const KeyValueFeatures& features = store().features();
  RecordProperty("feature.durability", std::string(to_string(features.durability)));
  RecordProperty("feature.max_key_bytes", std::to_string(features.max_key_bytes));
  RecordProperty("feature.max_value_bytes", std::to_string(features.max_value_bytes));
  EXPECT_GE(features.max_key_bytes, 250U);
  EXPECT_GE(features.max_value_bytes, 1UL << 20);
}

TEST_P(KeyValueSuite, SetGetAndDelete) {
  EXPECT_EQ(value(store(), "a"), "<none>");
  must_set("a", "1");
  EXPECT_EQ(value(store(), "a"), "1");
  EXPECT_EQ(value(other(), "a"), "1");
  must_set("a", "2");
  EXPECT_EQ(value(other(), "a"), "2");
  EXPECT_EQ(reason(apply(other(), {.key = "a"})), "ok");
  EXPECT_EQ(value(store(), "a"), "<none>");
  EXPECT_EQ(reason(apply(store(), {.key = "a"})), "ok");  // deleting what is not there is no error
}

TEST_P(KeyValueSuite, KeysAndValuesAreBytes) {
  const std::string key("k\0\xff\x80 ü'\"%_", 11);
  std::string every;
  for (int i = 0; i < 256; ++i) every += static_cast<char>(i);
  must_set(key, every);
  must_set("empty", "");
  EXPECT_EQ(value(store(), key), every);
  EXPECT_EQ(value(other(), "empty"), "");
  EXPECT_EQ(value(store(), "k"), "<none>");
  EXPECT_EQ(keys(scan(store(), "k")), std::vector<std::string>{key});
}

TEST_P(KeyValueSuite, KeysAndValuesOfEverySizeComeBack) {
  for (std::size_t n = 1; n <= 70; ++n) must_set(std::string(n, 'k'), std::string(n, 'v'));
  const auto page = scan(store(), "k");
  ASSERT_EQ(page.entries.size(), 70U);
  for (std::size_t n = 1; n <= 70; ++n) {
    EXPECT_EQ(value(other(), std::string(n, 'k')), std::string(n, 'v'));
    EXPECT_EQ(page.entries[n - 1].first, std::string(n, 'k'));
    EXPECT_EQ(page.entries[n - 1].second.value.str(), std::string(n, 'v'));
  }
}

TEST_P(KeyValueSuite, AResultForEachKeyInOrder) {
  must_set("a", "1");
  must_set("c", "3");
  const auto got = run_blocking(store().get(soon(), Batch<std::string>{"c", "b", "a", "c"}, {}));
  ASSERT_EQ(got.size(), 4U);
  for (const auto& g : got) ASSERT_TRUE(g);
  EXPECT_EQ((*got[0])->value, "3");
  EXPECT_FALSE(*got[1]);
  EXPECT_EQ((*got[2])->value, "1");
  EXPECT_EQ((*got[3])->value, "3");
  EXPECT_TRUE(run_blocking(store().get(soon(), {}, {})).empty());
  EXPECT_TRUE(run_blocking(store().apply(soon(), {})).empty());
}

TEST_P(KeyValueSuite, VersionsGrowAndAreNeverUsedAgain) {
  const Version first = must_set("a", "1");
  const Version second = must_set("a", "1");
  EXPECT_GT(second.value, first.value);
  EXPECT_EQ((*get(store(), "a"))->version, second);
  ASSERT_EQ(reason(apply(store(), {.key = "a"})), "ok");
  bed_->restart();
  const Version third = must_set("a", "1");
  EXPECT_GT(third.value, second.value);
  // What was read before the delete does not match what was made after it.
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("x"), .expect = second})), "VERSION_MISMATCH");
}

TEST_P(KeyValueSuite, CompareAndSet) {
  const Version v = must_set("a", "1");
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("2"), .expect = Version{v.value + 1000000}})),
            "VERSION_MISMATCH");
  EXPECT_EQ(value(store(), "a"), "1");
  const auto w = apply(other(), {.key = "a", .value = Bytes("2"), .expect = v});
  ASSERT_TRUE(w) << w.error().describe();
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("3"), .expect = v})), "VERSION_MISMATCH");
  EXPECT_EQ(value(store(), "a"), "2");
  EXPECT_EQ(reason(apply(store(), {.key = "a", .expect = v})), "VERSION_MISMATCH");  // a delete too
  EXPECT_EQ(reason(apply(store(), {.key = "a", .expect = w->version})), "ok");
  EXPECT_EQ(value(store(), "a"), "<none>");
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("4"), .expect = w->version})), "VERSION_MISMATCH");
}

TEST_P(KeyValueSuite, SetIfAbsent) {
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("1"), .expect_absent = true})), "ok");
  const auto second = apply(other(), {.key = "a", .value = Bytes("2"), .expect_absent = true});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().reason, "ALREADY_EXISTS");
  EXPECT_EQ(second.error().code, Code::already_exists);
  EXPECT_EQ(value(store(), "a"), "1");
  ASSERT_EQ(reason(apply(store(), {.key = "a"})), "ok");
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("3"), .expect_absent = true})), "ok");
}

TEST_P(KeyValueSuite, ContradictionsAreRefused) {
  const auto r = apply(store(), {.key = "a", .value = Bytes("1"), .expect = Version{1}, .expect_absent = true});
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::invalid_argument);
  EXPECT_EQ(reason(apply(store(), {.key = "", .value = Bytes("1")})), "INVALID_KEY");
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("1"), .ttl = Clock::duration(0)})), "INVALID_TTL");
  EXPECT_EQ(value(store(), "a"), "<none>");
}

TEST_P(KeyValueSuite, WhatIsTooLargeIsRefusedAlone) {
  const auto& f = store().features();
  const auto out = run_blocking(
      store().apply(soon(), Batch<Mutation>{{.key = std::string(f.max_key_bytes, 'k'), .value = Bytes("1")},
                                            {.key = std::string(f.max_key_bytes + 1, 'k'), .value = Bytes("1")},
                                            {.key = "v", .value = Bytes(std::string(f.max_value_bytes + 1, 'v'))},
                                            {.key = "b", .value = Bytes("1")}}));
  ASSERT_EQ(out.size(), 4U);
  EXPECT_EQ(reason(out[0]), "ok");
  EXPECT_EQ(reason(out[1]), "INVALID_KEY");
  EXPECT_EQ(reason(out[2]), "VALUE_TOO_LARGE");
  EXPECT_EQ(reason(out[3]), "ok");
  EXPECT_EQ(value(store(), std::string(f.max_key_bytes, 'k')), "1");
}

TEST_P(KeyValueSuite, EntriesOfABatchAreIndependentAndOneKeyIsInOrder) {
  const Version old = must_set("x", "old");
  const auto out =
      run_blocking(store().apply(soon(), Batch<Mutation>{{.key = "a", .value = Bytes("1")},
                                                         {.key = "x", .value = Bytes("no"), .expect_absent = true},
                                                         {.key = "b", .value = Bytes("2")},
                                                         {.key = "a"},
                                                         {.key = "a", .value = Bytes("3"), .expect_absent = true},
                                                         {.key = "a", .value = Bytes("4"), .expect_absent = true},
                                                         {.key = "x", .value = Bytes("new"), .expect = old},
                                                         {.key = "x", .value = Bytes("no"), .expect = old}}));
  ASSERT_EQ(out.size(), 8U);
  EXPECT_EQ(reason(out[0]), "ok");
  EXPECT_EQ(reason(out[1]), "ALREADY_EXISTS");
  EXPECT_EQ(reason(out[2]), "ok");
  EXPECT_EQ(reason(out[3]), "ok");
  EXPECT_EQ(reason(out[4]), "ok");
  EXPECT_EQ(reason(out[5]), "ALREADY_EXISTS");
  EXPECT_EQ(reason(out[6]), "ok");
  EXPECT_EQ(reason(out[7]), "VERSION_MISMATCH");
  EXPECT_GT(out[4]->version.value, out[0]->version.value);
  EXPECT_EQ(value(store(), "a"), "3");
  EXPECT_EQ(value(store(), "b"), "2");
  EXPECT_EQ(value(store(), "x"), "new");
}

TEST_P(KeyValueSuite, AnExpiredEntryIsNotThere) {
  const auto before = wall_now();
  ASSERT_EQ(reason(apply(store(), {.key = "long", .value = Bytes("1"), .ttl = std::chrono::hours(1)})), "ok");
  const auto got = get(store(), "long");
  ASSERT_TRUE(got && *got && (*got)->expires);
  EXPECT_GE(*(*got)->expires, before + std::chrono::minutes(59));
  EXPECT_LE(*(*got)->expires, wall_now() + std::chrono::minutes(61));

  ASSERT_EQ(reason(apply(store(), {.key = "short", .value = Bytes("1"), .ttl = std::chrono::milliseconds(30)})), "ok");
  const Version v = must_set("plain", "1");
  EXPECT_TRUE(goes_away(other(), "short"));
  EXPECT_EQ(keys(scan(store(), "")), (std::vector<std::string>{"long", "plain"}));
  EXPECT_EQ(reason(apply(store(), {.key = "short", .value = Bytes("2"), .expect_absent = true})), "ok");
  EXPECT_EQ(value(store(), "short"), "2");
  EXPECT_GT((*get(store(), "short"))->version.value, v.value);
}

TEST_P(KeyValueSuite, AWriteWithoutTtlTakesTheExpiryAway) {
  ASSERT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("1"), .ttl = std::chrono::hours(1)})), "ok");
  must_set("a", "2");
  EXPECT_FALSE((*get(store(), "a"))->expires);
}

TEST_P(KeyValueSuite, AnExpiredEntryHasNoVersionToCompareWith) {
  const auto w = apply(store(), {.key = "a", .value = Bytes("1"), .ttl = std::chrono::milliseconds(30)});
  ASSERT_TRUE(w);
  ASSERT_TRUE(goes_away(store(), "a"));
  EXPECT_EQ(reason(apply(store(), {.key = "a", .value = Bytes("2"), .expect = w->version})), "VERSION_MISMATCH");
}

TEST_P(KeyValueSuite, ScanGoesInOrderOfBytesWithinThePrefix) {
  for (const char* k : {"b", "a/2", "a/10", "a/1", "a", "a/\xc3\xbc", "a/\xff", "a0", "A/1"}) must_set(k, k);
  EXPECT_EQ(keys(scan(store(), "a/")), (std::vector<std::string>{"a/1", "a/10", "a/2", "a/\xc3\xbc", "a/\xff"}));
  EXPECT_EQ(keys(scan(store(), "")).size(), 9U);
  EXPECT_TRUE(scan(store(), "zz").entries.empty());
  EXPECT_FALSE(scan(store(), "a/").more);
  EXPECT_EQ(scan(store(), "a/1").entries.at(0).second.value, "a/1");
}

TEST_P(KeyValueSuite, ScanInPagesOfRowsMissesNothing) {
  std::vector<std::string> expected;
  for (int i = 0; i < 25; ++i) {
    expected.push_back("k" + std::to_string(100 + i));
    must_set(expected.back(), "v");
  }
  must_set("l", "v");
  std::vector<std::string> seen;
  std::string after;
  for (int pages = 0; pages < 100; ++pages) {
    const auto page = scan(other(), "k", after, 7);
    EXPECT_LE(page.entries.size(), 7U);
    for (const auto& k : keys(page)) seen.push_back(k);
    if (!page.more) break;
    ASSERT_FALSE(page.entries.empty());
    after = page.entries.back().first;
  }
  EXPECT_EQ(seen, expected);
  EXPECT_FALSE(scan(store(), "k", "", 25).more);  // exactly all
}

TEST_P(KeyValueSuite, ScanIsLimitedByBytesButAlwaysGoesOn) {
  for (int i = 0; i < 6; ++i) must_set("k" + std::to_string(i), std::string(1000, 'x'));
  const auto page = scan(store(), "k", "", 100, 2500);
  EXPECT_EQ(page.entries.size(), 2U);
  EXPECT_TRUE(page.more);
  const auto one = scan(store(), "k", "", 100, 10);
  EXPECT_EQ(one.entries.size(), 1U);
  EXPECT_TRUE(one.more);
}

TEST_P(KeyValueSuite, AReadAtAPositionSeesTheWrite) {
  for (int i = 0; i < 20; ++i) {
    const auto written = set(store(), "a", std::to_string(i));
    ASSERT_TRUE(written);
    ASSERT_FALSE(written->at.empty());
    EXPECT_EQ(value(other(), "a", written->at), std::to_string(i));
  }
}

TEST_P(KeyValueSuite, PositionsGrow) {
  const auto a = set(store(), "a", "1");
  const auto b = set(other(), "a", "2");
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->at.compare(b->at), Position::Order::reached);
  EXPECT_EQ(b->at.compare(a->at), Position::Order::behind);
}

TEST_P(KeyValueSuite, AStrangePositionIsSaidToBeUnknown) {
  must_set("a", "1");
  const Position strange(PositionPart{.source = random_id(), .offset = 1});
  EXPECT_EQ(value(store(), "a", strange), "<POSITION_UNKNOWN>");
}

TEST_P(KeyValueSuite, CompareAndSetLosesNoIncrement) {
  must_set("n", "0");
  constexpr int kWorkers = 8;
  constexpr int kEach = 25;
  const auto increment = [](KeyValueStore* s) -> Task<int> {
    int done = 0;
    for (int tries = 0; done < kEach && tries < 100000; ++tries) {
      auto got = co_await s->get(Context(), Batch<std::string>(1, "n"), Position());
      if (!got.at(0) || !*got.at(0)) co_return -1;
      const Entry& entry = **got.at(0);
      Batch<Mutation> batch(1);
      batch[0].key = "n";
      batch[0].value = Bytes(std::to_string(std::stoi(entry.value.str()) + 1));
      batch[0].expect = entry.version;
      const auto written = co_await s->apply(Context(), std::move(batch));
      if (written.at(0)) {
        ++done;
      } else if (written.at(0).error().reason != "VERSION_MISMATCH") {
        co_return -1;
      }
    }
    co_return done;
  };
  std::vector<Task<int>> workers;
  for (int i = 0; i < kWorkers; ++i) workers.push_back(increment(i % 2 == 0 ? &store() : &other()));
  EXPECT_THAT(run_blocking(when_all(std::move(workers))), ::testing::Each(kEach));
  EXPECT_EQ(value(store(), "n"), std::to_string(kWorkers * kEach));
}

TEST_P(KeyValueSuite, OneOfManyMakesTheEntry) {
  for (int round = 0; round < 10; ++round) {
    std::vector<Task<Batch<Result<Written>>>> tasks;
    for (int i = 0; i < 8; ++i) {
      Batch<Mutation> batch(1);
      batch[0] = {.key = "k" + std::to_string(round), .value = Bytes(std::to_string(i)), .expect_absent = true};
      tasks.push_back((i % 2 == 0 ? store() : other()).apply(soon(), std::move(batch)));
    }
    std::string winner = "none";
    int winners = 0;
    const auto out = run_blocking(when_all(std::move(tasks)));
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (out[i].at(0)) {
        ++winners;
        winner = std::to_string(i);
      } else {
        EXPECT_EQ(out[i].at(0).error().reason, "ALREADY_EXISTS");
      }
    }
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(value(store(), "k" + std::to_string(round)), winner);
  }
}

TEST_P(KeyValueSuite, AStoppedCallChangesNothing) {
  std::stop_source stop;
  stop.request_stop();
  const Context stopped = Context().with_stop(stop.get_token());
  Batch<Mutation> batch(1);
  batch[0] = {.key = "a", .value = Bytes("1")};
  const auto out = run_blocking(store().apply(stopped, std::move(batch)));
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(reason(out[0]), "CANCELLED");
  const auto got = run_blocking(store().get(stopped, Batch<std::string>(1, "a"), {}));
  ASSERT_EQ(got.size(), 1U);
  ASSERT_FALSE(got[0]);
  EXPECT_EQ(got[0].error().reason, "CANCELLED");
  EXPECT_EQ(run_blocking(store().scan(stopped, "", "", 1, 1)).error().reason, "CANCELLED");
  EXPECT_EQ(value(store(), "a"), "<none>");
}

TEST_P(KeyValueSuite, WhatWasAcknowledgedSurvivesARestart) {
  if (store().features().durability == Durability::memory) GTEST_SKIP() << "this store declares that it keeps nothing";
  Batch<Mutation> batch;
  for (int i = 0; i < 500; ++i) batch.push_back({.key = "k" + std::to_string(i), .value = Bytes(std::to_string(i))});
  for (const auto& r : run_blocking(store().apply(soon(), std::move(batch)))) ASSERT_TRUE(r);
  bed_->restart();
  for (int i = 0; i < 500; ++i) EXPECT_EQ(value(store(), "k" + std::to_string(i)), std::to_string(i));
}

}  // namespace prism
