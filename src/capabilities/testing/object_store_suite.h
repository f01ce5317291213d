// The conformance suite of ObjectStore. A backend's test includes this once and instantiates it:
//
//   INSTANTIATE_TEST_SUITE_P(Filesystem, ObjectStoreSuite,
//                            testing::Values(ObjectStoreFactory([] { return std::make_unique<MyFixture>(); })));
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "capabilities/object_store.h"
#include "capabilities/testing/pattern_source.h"
#include "runtime/loop.h"
#include "runtime/scope.h"

namespace prism {

// What a backend gives the suite: an empty bucket of its own, torn down with the fixture.
class ObjectStoreFixture {
 public:
  virtual ~ObjectStoreFixture() = default;
  virtual ObjectStore& store() = 0;
  // Another client of the same bucket, such as another process would have, on loops and pools of its own.
  virtual std::shared_ptr<ObjectStore> another() = 0;
  // Limits of a server that keeps objects as files. Are "a" and "a/b" kept side by side? Where not, the later one may
  // be refused with INVALID_OBJECT_KEY.
  virtual bool keys_nest() const { return true; }
  virtual std::size_t max_segment_bytes() const { return 1024; }
};
using ObjectStoreFactory = std::function<std::unique_ptr<ObjectStoreFixture>()>;

class ObjectStoreSuite : public testing::TestWithParam<ObjectStoreFactory> {
 protected:
  ObjectStore& store() { return fixture->store(); }

  Result<ObjectInfo> put(std::string key, std::string content, PutOptions options = {}) {
    return run_blocking(store().put({}, std::move(key), Payload(Bytes(std::move(content))), std::move(options)));
  }
  Result<std::string> read(std::string key, std::uint64_t from = 0, std::optional<std::uint64_t> n = {}) {
    PRISM_TRY(auto got, run_blocking(store().get({}, std::move(key), from, n)));
    PRISM_TRY(const Bytes all, run_blocking(got.second.collect({}, 1UL << 30)));
    if (got.second.size() && *got.second.size() != all.size())
      return fail(Code::internal, "WRONG_SIZE", "size() is wrong");
    return all.str();
  }
  std::vector<std::string> keys(std::string prefix = {}, std::string after = {}, std::size_t max = 1000) {
    auto listed = run_blocking(store().list({}, std::move(prefix), std::move(after), max));
    EXPECT_TRUE(listed) << listed.error().describe();
    std::vector<std::string> out;
    if (listed) {
      for (const ObjectInfo& info : *listed) out.push_back(info.key);
    }
    return out;
  }
  template <class T>
  static std::string reason(const Result<T>& result) {
    return result ? "" : result.error().reason;
  }
  std::size_t unfinished() {
    auto n = run_blocking(store().abort_uploads({}, "", wall_now() + std::chrono::hours(24)));
    EXPECT_TRUE(n) << n.error().describe();
    return n.value_or(0);
  }

  // Those that the store can keep beside each other.
  std::vector<std::string> possible(std::vector<std::string> keys) const {
    const auto all = keys;
    std::erase_if(keys, [&](const std::string& key) {
      for (std::size_t from = 0, to = 0; to < key.size(); from = to + 1) {
        to = std::min(key.find('/', from), key.size());
        if (to - from > fixture->max_segment_bytes()) return true;
      }
      const auto inside = [&](const std::string& other) { return other.starts_with(key + "/"); };
      return !fixture->keys_nest() && std::ranges::any_of(all, inside);
    });
    return keys;
  }

  std::unique_ptr<ObjectStoreFixture> fixture = GetParam()();
};

TEST_P(ObjectStoreSuite, FeaturesAreDeclared) {
  const ObjectFeatures& features = store().features();
  RecordProperty("feature.durability", std::string(to_string(features.durability)));
  RecordProperty("feature.lifecycle", features.lifecycle ? "yes" : "no");
}

TEST_P(ObjectStoreSuite, GivesBackWhatWasPut) {
  std::string all_bytes;
  for (int i = 0; i < 256; ++i) all_bytes += static_cast<char>(i);
  for (const std::string& content : {std::string(), std::string("x"), all_bytes, std::string(100'000, 'z')}) {
    const auto before = wall_now();
    PutOptions options{.content_type = "video/mp4", .metadata = {{"a", "1"}, {"empty", ""}, {"umlaut", "\xc3\xa4"}}};
    const auto info = put("some/key.bin", content, options);
    ASSERT_TRUE(info) << info.error().describe();
    EXPECT_EQ(info->key, "some/key.bin");
    EXPECT_EQ(info->size, content.size());
    EXPECT_EQ(info->crc32c, crc32c(0, content));
    EXPECT_FALSE(info->etag.empty());
    EXPECT_EQ(read("some/key.bin"), content);
    const auto head = run_blocking(store().head({}, "some/key.bin"));
    ASSERT_TRUE(head) << head.error().describe();
    EXPECT_EQ(head->size, content.size());
    EXPECT_EQ(head->crc32c, info->crc32c);
    EXPECT_EQ(head->etag, info->etag);
    EXPECT_EQ(head->content_type, "video/mp4");
    EXPECT_EQ(head->metadata, options.metadata);
    EXPECT_GE(head->modified + std::chrono::seconds(2), before);  // the store's clock, maybe in whole seconds
    EXPECT_LE(head->modified, wall_now() + std::chrono::seconds(2));
  }
  EXPECT_EQ(unfinished(), 0U);
}

TEST_P(ObjectStoreSuite, StreamsOfAnySizeAndPieceArriveUnchanged) {
  constexpr std::uint64_t kMiB = 1UL << 20;
  const struct {
    std::uint64_t size;
    std::size_t piece;
  } cases[] = {{0, 1},           {1, 1},           {5000, 1},         {kMiB - 1, 4096},      {kMiB, kMiB},
               {kMiB + 1, kMiB}, {3 * kMiB, 7777}, {20 * kMiB, kMiB}, {9 * kMiB + 5, 131072}};
  for (const auto& [size, piece] : cases) {
    for (const bool size_known : {true, false}) {
      const auto info = run_blocking(
          store().put({}, "stream", PatternSource::payload({.size = size, .piece = piece}, size_known), {}));
      ASSERT_TRUE(info) << info.error().describe();
      EXPECT_EQ(info->size, size);
      const std::string expected = PatternSource::bytes(0, size);
      EXPECT_EQ(info->crc32c, crc32c(0, expected));
      const auto content = read("stream");
      ASSERT_TRUE(content) << content.error().describe();
      EXPECT_TRUE(*content == expected) << size << " in pieces of " << piece;
    }
  }
}

TEST_P(ObjectStoreSuite, PiecesAreNeverLargerThanAsked) {
  ASSERT_TRUE(run_blocking(store().put({}, "k", PatternSource::payload({.size = 3'000'000}), {})));
  for (const std::size_t max : {1000UL, 131072UL, 5UL << 20}) {
    auto got = run_blocking(store().get({}, "k", 0, std::nullopt));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->first.size, 3'000'000U);
    EXPECT_EQ(got->second.size(), 3'000'000U);
    std::string all;
    while (true) {
      auto piece = run_blocking(got->second.next({}, max));
      ASSERT_TRUE(piece) << piece.error().describe();
      if (piece->empty()) break;
      ASSERT_LE(piece->size(), max);
      all += piece->view();
    }
    EXPECT_TRUE(all == PatternSource::bytes(0, 3'000'000));
  }
}

TEST_P(ObjectStoreSuite, ReadsRanges) {
  ASSERT_TRUE(run_blocking(store().put({}, "k", PatternSource::payload({.size = 2'500'000}), {})));
  const struct {
    std::uint64_t from;
    std::optional<std::uint64_t> n;
    std::size_t expected;
  } cases[] = {
      {0, 1, 1},          {0, 0, 0},         {1, {}, 2'499'999},        {2'499'999, {}, 1},       {2'499'999, 10, 1},
      {2'500'000, {}, 0}, {1'000'000, 7, 7}, {7, 2'000'000, 2'000'000}, {0, 9'000'000, 2'500'000}};
  for (const auto& [from, n, expected] : cases) {
    const auto part = read("k", from, n);
    ASSERT_TRUE(part) << part.error().describe() << " at " << from;
    EXPECT_TRUE(*part == PatternSource::bytes(from, expected)) << from;
  }
  EXPECT_EQ(reason(read("k", 2'500'001)), "RANGE_NOT_SATISFIABLE");
}

TEST_P(ObjectStoreSuite, AnAbsentObjectIsNotFound) {
  ASSERT_TRUE(put("a/b", "x"));
  for (const char* key : {"absent", "a", "a/b/c", "a/absent", "x/y/z"}) {
    EXPECT_EQ(reason(read(key)), "OBJECT_NOT_FOUND") << key;
    EXPECT_EQ(reason(run_blocking(store().head({}, key))), "OBJECT_NOT_FOUND") << key;
  }
}

TEST_P(ObjectStoreSuite, TakesEveryLegalKeyAndRefusesTheOthers) {
  const std::vector<std::string> legal{"a",
                                       "a/b",
                                       "a/b/c",
                                       "a.o",
                                       "a.o/b",
                                       "a.o.o",
                                       ".hidden",
                                       "..a",
                                       "a..",
                                       ".../x",
                                       "-",
                                       "~",
                                       "%",
                                       "%2F",
                                       "%~",
                                       "%_",
                                       "a b",
                                       " ",
                                       "A",
                                       "a\\b",
                                       "a:b=c?d&e+f#g",
                                       "*",
                                       "tab\there",
                                       "line\nbreak",
                                       "\x7f",
                                       "\xc3\xa4\xc3\xb6",
                                       "\xf0\x9f\x98\x80/\xe2\x82\xac",
                                       std::string(63, 'x'),
                                       std::string(64, 'x'),
                                       std::string(65, 'x'),
                                       std::string(64, 'x') + "/y",
                                       std::string(128, 'x'),
                                       std::string(1024, 'k'),
                                       std::string(1024, '%'),
                                       std::string(500, 'd') + "/" + std::string(500, 'e'),
                                       "con",
                                       "objects",
                                       "uploads"};
  std::string deep = "d";
  while (deep.size() + 2 <= 1024) deep += "/d";
  std::vector<std::string> all = legal;
  all.push_back(deep);
  all = possible(std::move(all));
  for (const std::string& key : all) {
    const auto info = put(key, "content of " + key);
    ASSERT_TRUE(info) << key << ": " << info.error().describe();
  }
  for (const std::string& key : all) EXPECT_EQ(read(key), "content of " + key);
  std::ranges::sort(all);
  EXPECT_EQ(keys(), all);
  const auto removed = run_blocking(store().remove({}, all));
  for (const auto& result : removed) EXPECT_TRUE(result);
  EXPECT_TRUE(keys().empty());

  using namespace std::string_literals;
  for (const std::string& key : {""s, "/"s, "/a"s, "a/"s, "a//b"s, "."s, ".."s, "../a"s, "a/../b"s, "a/./b"s, "a/.."s,
                                 "a\0b"s, "\xff"s, "\xc3"s, "\xc0\xaf"s, "\xed\xa0\x80"s, std::string(1025, 'x')}) {
    EXPECT_EQ(reason(put(key, "x")), "INVALID_OBJECT_KEY") << key;
    EXPECT_EQ(reason(read(key)), "INVALID_OBJECT_KEY") << key;
    EXPECT_EQ(reason(run_blocking(store().head({}, key))), "INVALID_OBJECT_KEY") << key;
    EXPECT_EQ(reason(run_blocking(store().remove({}, {key})).front()), "INVALID_OBJECT_KEY") << key;
  }
}

TEST_P(ObjectStoreSuite, AKeyMayBeThePrefixOfAnother) {
  ASSERT_TRUE(put("a/b/c", "3"));
  if (!fixture->keys_nest()) {
    for (const char* key : {"a/b", "a/b/c/d"}) {
      const auto info = put(key, "2");
      if (!info) EXPECT_EQ(reason(info), "INVALID_OBJECT_KEY");
    }
    EXPECT_EQ(read("a/b/c"), "3");
    return;
  }
  ASSERT_TRUE(put("a/b", "2"));
  ASSERT_TRUE(put("a", "1"));
  EXPECT_EQ(read("a"), "1");
  EXPECT_EQ(read("a/b"), "2");
  EXPECT_EQ(read("a/b/c"), "3");
  ASSERT_TRUE(run_blocking(store().remove({}, {"a/b"})).front());
  EXPECT_EQ(keys(), (std::vector<std::string>{"a", "a/b/c"}));
  ASSERT_TRUE(run_blocking(store().remove({}, {"a/b/c"})).front());
  EXPECT_EQ(read("a"), "1");
}

TEST_P(ObjectStoreSuite, ReplacesAndKeepsWhatIsBeingRead) {
  const auto first = run_blocking(store().put({}, "k", PatternSource::payload({.size = 3'000'000, .seed = 1}), {}));
  auto reading = run_blocking(store().get({}, "k", 0, std::nullopt));
  ASSERT_TRUE(reading);
  auto begin = run_blocking(reading->second.next({}, 1000));
  ASSERT_TRUE(begin);
  const auto second = run_blocking(store().put({}, "k", PatternSource::payload({.size = 3'000'000, .seed = 2}), {}));
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->etag, second->etag);
  EXPECT_TRUE(read("k") == PatternSource::bytes(0, 3'000'000, 2));
  // The old one to its end, or an error: never a mixture.
  const auto rest = run_blocking(reading->second.collect({}, 1UL << 30));
  if (rest) EXPECT_TRUE(begin->str() + rest->str() == PatternSource::bytes(0, 3'000'000, 1));
}

TEST_P(ObjectStoreSuite, ConditionsAreKept) {
  const auto first = put("k", "1", {.if_absent = true});
  ASSERT_TRUE(first) << first.error().describe();
  EXPECT_EQ(reason(put("k", "2", {.if_absent = true})), "OBJECT_EXISTS");
  EXPECT_EQ(reason(put("k", "2", {.if_match = "another"})), "PRECONDITION_FAILED");
  EXPECT_EQ(reason(put("absent", "2", {.if_match = first->etag})), "PRECONDITION_FAILED");
  EXPECT_EQ(read("k"), "1");
  const auto second = put("k", "2", {.if_match = first->etag});
  ASSERT_TRUE(second) << second.error().describe();
  EXPECT_EQ(reason(put("k", "3", {.if_match = first->etag})), "PRECONDITION_FAILED");
  EXPECT_EQ(read("k"), "2");
  EXPECT_EQ(keys(), std::vector<std::string>{"k"});
  EXPECT_EQ(unfinished(), 0U);
}

TEST_P(ObjectStoreSuite, OfManyConditionalPutsOneWins) {
  const auto other = fixture->another();
  std::string etag;
  for (int round = 0; round < 10; ++round) {
    std::vector<Task<Result<ObjectInfo>>> puts;
    for (int i = 0; i < 8; ++i) {
      ObjectStore& through = i % 2 == 0 ? store() : *other;
      puts.push_back(through.put({}, "k", Payload(Bytes(std::to_string(round) + "/" + std::to_string(i))),
                                 round == 0 ? PutOptions{.if_absent = true} : PutOptions{.if_match = etag}));
    }
    auto results = run_blocking(when_all(std::move(puts)));
    int won = 0;
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i]) {
        ++won;
        etag = results[i]->etag;
        EXPECT_EQ(read("k"), std::to_string(round) + "/" + std::to_string(i));
      } else {
        EXPECT_EQ(reason(results[i]), round == 0 ? "OBJECT_EXISTS" : "PRECONDITION_FAILED");
      }
    }
    EXPECT_EQ(won, 1);
  }
}

TEST_P(ObjectStoreSuite, ListsInOrderOfKeysByPages) {
  std::vector<std::string> all{"a",
                               "a-b",
                               "a/x",
                               "a/y/z",
                               "a0",
                               "ab",
                               "b",
                               "b/1",
                               "b/10",
                               "b/2",
                               "b0/1",
                               std::string(64, 'p'),
                               std::string(64, 'p') + "-",
                               std::string(64, 'p') + "/q",
                               std::string(64, 'p') + "0",
                               std::string(70, 'p'),
                               std::string(63, 'p'),
                               "\xc3\xa4"};
  for (int i = 0; i < 150; ++i) all.push_back("many/" + std::to_string(i));
  all = possible(std::move(all));
  for (const std::string& key : all) ASSERT_TRUE(put(key, key));
  std::ranges::sort(all);
  EXPECT_EQ(keys(), all);
  for (const std::size_t page : {1UL, 7UL, 64UL}) {
    std::vector<std::string> paged;
    while (paged.size() <= all.size()) {
      const auto some = keys("", paged.empty() ? "" : paged.back(), page);
      ASSERT_LE(some.size(), page);
      if (some.empty()) break;
      paged.insert(paged.end(), some.begin(), some.end());
    }
    EXPECT_EQ(paged, all);
  }
  for (const std::string prefix : {"a", "a/", "a/y", "b/1", "many/1", "nothing", "p", "pppppp", "\xc3"}) {
    std::vector<std::string> expected;
    std::ranges::copy_if(all, std::back_inserter(expected),
                         [&](const std::string& key) { return key.starts_with(prefix); });
    EXPECT_EQ(keys(prefix), expected) << prefix;
  }
  EXPECT_EQ(keys("a", "a/"), (std::vector<std::string>{"a/x", "a/y/z", "a0", "ab"}));
  EXPECT_EQ(keys("a", "a/x"), (std::vector<std::string>{"a/y/z", "a0", "ab"}));
  EXPECT_EQ(keys("b/", "a"), (std::vector<std::string>{"b/1", "b/10", "b/2"}));
  EXPECT_TRUE(keys("a", "b").empty());
  EXPECT_TRUE(keys("", "", 0).empty());
  const auto listed = run_blocking(store().list({}, "a/x", "", 10));
  ASSERT_TRUE(listed);
  ASSERT_EQ(listed->size(), 1U);
  EXPECT_EQ(listed->front().size, 3U);
  EXPECT_FALSE(listed->front().etag.empty());
}

TEST_P(ObjectStoreSuite, RemovingIsIdempotent) {
  ASSERT_TRUE(put("a/b", "x"));
  ASSERT_TRUE(put("a/c", "x"));
  auto results = run_blocking(store().remove({}, {"a/b", "absent", "a/b", "", "x/y"}));
  ASSERT_EQ(results.size(), 5U);
  EXPECT_TRUE(results[0] && results[1] && results[2] && results[4]);
  EXPECT_EQ(reason(results[3]), "INVALID_OBJECT_KEY");
  EXPECT_EQ(reason(read("a/b")), "OBJECT_NOT_FOUND");
  EXPECT_EQ(read("a/c"), "x");
  EXPECT_TRUE(run_blocking(store().remove({}, {})).empty());
  ASSERT_TRUE(put("a/b", "again"));
  EXPECT_EQ(read("a/b"), "again");
}

TEST_P(ObjectStoreSuite, AFailedPutLeavesNothing) {
  ASSERT_TRUE(put("k", "before"));
  for (const std::uint64_t fail_at : {0UL, 1000UL, 3'000'000UL}) {
    auto broken = run_blocking(
        store().put({}, "k", PatternSource::payload({.size = 4'000'000, .piece = 1000, .fail_at = fail_at}), {}));
    EXPECT_EQ(reason(broken), "SOURCE_BROKEN");
  }
  for (const std::uint64_t announced : {2'999'999UL, 3'000'001UL, 0UL}) {
    auto wrong = run_blocking(store().put(
        {}, "k", Payload(std::make_unique<PatternSource>(PatternSource::Options{.size = 3'000'000}), announced), {}));
    EXPECT_EQ(reason(wrong), "PAYLOAD_SIZE_MISMATCH") << announced;
  }
  PutOptions excessive;
  excessive.metadata["big"] = std::string(100'000, 'm');
  EXPECT_EQ(reason(put("k", "x", excessive)), "INVALID_METADATA");
  EXPECT_EQ(read("k"), "before");
  EXPECT_EQ(keys(), std::vector<std::string>{"k"});
  EXPECT_EQ(unfinished(), 0U);
}

TEST_P(ObjectStoreSuite, AStoppedPutLeavesNothing) {
  ASSERT_TRUE(put("k", "before"));
  for (const std::uint64_t stop_at : {0UL, 100'000UL, 5'000'000UL}) {
    std::stop_source stop;
    PatternSource::Options options{.size = 1UL << 40, .piece = 65536};  // would go on for very long
    options.on_pull = [&](std::uint64_t at) {
      if (at >= stop_at) stop.request_stop();
    };
    const auto stopped =
        run_blocking(store().put(Context::background(stop.get_token()), "k", PatternSource::payload(options), {}));
    EXPECT_EQ(reason(stopped), "CANCELLED");
  }
  const auto late = run_blocking(store().put(Context().with_timeout(std::chrono::milliseconds(30)), "k",
                                             PatternSource::payload({.size = 1UL << 40}), {}));
  EXPECT_EQ(reason(late), "DEADLINE_EXCEEDED");
  EXPECT_EQ(read("k"), "before");
  EXPECT_EQ(unfinished(), 0U);
}

TEST_P(ObjectStoreSuite, AnObjectIsSeenOnlyWhenItIsWhole) {
  std::atomic<bool> seen = false;
  PatternSource::Options options{.size = 6'000'000, .piece = 100'000};
  const auto other = fixture->another();
  options.on_pull = [&](std::uint64_t /*at*/) {
    // In between two pieces: the put waits here until the other client has its answer.
    std::jthread([&] {
      if (run_blocking(other->head({}, "k"))) seen = true;
      const auto listed = run_blocking(other->list({}, "", "", 10));
      if (!listed || !listed->empty()) seen = true;
    });
  };
  ASSERT_TRUE(run_blocking(store().put({}, "k", PatternSource::payload(options), {})));
  EXPECT_FALSE(seen);
  EXPECT_TRUE(run_blocking(other->head({}, "k")));
}

TEST_P(ObjectStoreSuite, StoppedCallsAnswer) {
  ASSERT_TRUE(put("k", std::string(3'000'000, 'x')));
  std::stop_source stop;
  stop.request_stop();
  const Context stopped = Context::background(stop.get_token());
  EXPECT_EQ(reason(run_blocking(store().get(stopped, "k", 0, std::nullopt))), "CANCELLED");
  EXPECT_EQ(reason(run_blocking(store().head(stopped, "k"))), "CANCELLED");
  EXPECT_EQ(reason(run_blocking(store().list(stopped, "", "", 10))), "CANCELLED");
  EXPECT_EQ(reason(run_blocking(store().remove(stopped, {"k"})).front()), "CANCELLED");
  auto got = run_blocking(store().get({}, "k", 0, std::nullopt));
  ASSERT_TRUE(got);
  EXPECT_EQ(reason(run_blocking(got->second.next(stopped, 1000))), "CANCELLED");
}

TEST_P(ObjectStoreSuite, ManyClientsAtOnce) {
  const auto other = fixture->another();
  struct One {
    static Task<int> run(ObjectStore* through, unsigned number) {
      int wrong = 0;
      const std::string key = "c/" + std::to_string(number % 5) + "/own-" + std::to_string(number);
      for (unsigned round = 0; round < 6; ++round) {
        const std::size_t size = (number * 7919 + round * 104729) % 2'000'000;
        // A key of its own: what was put is what is read.
        auto own =
            co_await through->put({}, key, PatternSource::payload({.size = size, .piece = 30'000, .seed = number}), {});
        if (!own) ++wrong;
        auto got = co_await through->get({}, key, 0, std::nullopt);
        if (got) {
          auto content = co_await got->second.collect({}, 1UL << 30);
          if (!content || content->view() != PatternSource::bytes(0, size, number)) ++wrong;
        } else {
          ++wrong;
        }
        // A common key: always one of the whole contents.
        auto common =
            co_await through->put({}, "c/common", PatternSource::payload({.size = 100'000, .seed = number}), {});
        if (!common) ++wrong;
        auto seen = co_await through->get({}, "c/common", 0, std::nullopt);
        if (seen) {
          auto content = co_await seen->second.collect({}, 1UL << 30);
          if (!content || content->size() != 100'000 || crc32c(0, content->view()) != seen->first.crc32c) ++wrong;
        } else {
          ++wrong;
        }
        // Folders come and go under the feet of the others.
        auto removed = co_await through->remove({}, {key});
        if (!removed.front()) ++wrong;
      }
      co_return wrong;
    }
  };
  std::vector<Task<int>> clients;
  for (unsigned i = 0; i < 12; ++i) clients.push_back(One::run(i % 2 == 0 ? &store() : other.get(), i));
  for (const int wrong : run_blocking(when_all(std::move(clients)))) EXPECT_EQ(wrong, 0);
  EXPECT_EQ(keys(), std::vector<std::string>{"c/common"});
  EXPECT_EQ(unfinished(), 0U);
}

}  // namespace prism
