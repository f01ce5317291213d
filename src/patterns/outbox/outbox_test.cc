#include "patterns/outbox/outbox.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends/sqlite/engine.h"
#include "backends/sqlite/sql_database.h"
#include "config/document.h"
#include "patterns/outbox/table.h"
#include "runtime/scope.h"

namespace prism::outbox {
namespace {

// The log below: keeps what it is given, and can be down, altogether or for one key.
class Log final : public Publisher {
 public:
  std::vector<std::string> ids, keys;
  std::vector<std::size_t> batches;
  bool down = false;
  std::string refused_key;
  std::function<bool(const Message&)> refuses;
  Code refusal = Code::unavailable;  // unavailable: it may go away by itself
  Relay* meanwhile = nullptr;        // runs a round of its own before the next publish is answered

  Task<Batch<Result<Appended>>> publish(Context /*context*/, Batch<Message> messages) override {
    batches.push_back(messages.size());
    Batch<Result<Appended>> results;
    std::set<std::string> failed;
    for (const auto& m : messages) {
      if (failed.contains(m.key)) {
        results.emplace_back(fail(Code::aborted, "EARLIER_MESSAGE_FAILED", "x", {}, Retry::safe));
      } else if (down || (!refused_key.empty() && m.key == refused_key) || (refuses && refuses(m))) {
        if (!m.key.empty()) failed.insert(m.key);
        results.emplace_back(fail(refusal, "LOG_DOWN", "the log is down", {}, Retry::safe));
      } else {
        ids.push_back(m.id);
        keys.push_back(m.key);
        results.emplace_back(Appended{});
      }
    }
    if (Relay* other = std::exchange(meanwhile, nullptr)) {
      for (std::uint32_t shard = 0; shard < other->info().shards; ++shard) {
        const auto round =
            co_await other->round(Context(), shard, Grant{"relay", "other", 2, Clock::now() + std::chrono::minutes(1)});
        EXPECT_TRUE(round);
      }
    }
    co_return results;
  }
};

struct OutboxTest : testing::Test {
  OutboxTest() {
    std::string pattern = testing::TempDir() + "prism-outbox-XXXXXX";
    dir = mkdtemp(pattern.data());
    auto opened = run_blocking(sqlite::Engine::open(runtime, dir + "/db"));
    EXPECT_TRUE(opened) << opened.error().describe();
    engine = *opened;
    database = *run_blocking(sqlite::open_sql_database(Context(), engine));
  }
  ~OutboxTest() override {
    run_blocking(database->close(Context()));
    run_blocking(engine->close());
    std::filesystem::remove_all(dir);
  }

  void make_table() { ASSERT_TRUE(run_blocking(database->create_table(Context(), table_spec(options.table)))); }
  // Ids are the numbers from `first` on.
  std::vector<Result<Appended>> publish(int n, const std::string& key, int first = 0, bool keyed = true) {
    Batch<Message> messages;
    for (int i = 0; i < n; ++i) {
      Message m;
      m.topic = "orders";
      m.id = key + std::to_string(first + i);
      m.key = keyed ? key : "";
      m.payload = Payload(Bytes(std::string("{}")));
      messages.push_back(std::move(m));
    }
    return run_blocking(make_publisher(database, options, 1'000'000, {"postgres", "orders-db", "sqlite"})
                            ->publish(Context(), std::move(messages)));
  }
  // One row of each of so many keys: "bad<number>".
  void publish_bad_keys(int n, int first = 0) {
    for (int i = first; i < first + n; i += 1000) {
      Batch<Statement> rows;
      for (int k = i; k < i + 1000; ++k) {
        rows.push_back({"INSERT INTO outbox (topic, message_id, aggregate_id, body) VALUES ('orders', $1, $1, x'7b7d')",
                        {SqlValue("bad" + std::to_string(k))}});
      }
      ASSERT_TRUE(run_blocking(database->atomically(Context(), std::move(rows))));
    }
  }
  SqlRows query(const std::string& text) {
    auto rows = run_blocking(database->query(Context(), {text, {}}, 100'000));
    EXPECT_TRUE(rows) << rows.error().describe();
    return rows ? std::move(*rows) : SqlRows();
  }
  std::int64_t number(const std::string& text) { return std::get<std::int64_t>(query(text).rows.at(0).at(0)); }
  std::int64_t pending() { return number("SELECT count(*) FROM " + options.table + " WHERE published_at IS NULL"); }

  // One round of each shard, under a grant that is good for a minute unless told otherwise.
  std::uint64_t rounds(Relay& relay, Clock::duration grant = std::chrono::minutes(1)) {
    std::uint64_t items = 0;
    for (std::uint32_t shard = 0; shard < relay.info().shards; ++shard) {
      auto round = run_blocking(relay.round(Context(), shard, Grant{"relay", "me", 1, Clock::now() + grant}));
      if (round) {
        items += round->items;
      } else {
        errors.push_back(round.error().reason);
      }
    }
    return items;
  }
  Relay relay() { return {"orders", database, log, options}; }

  Runtime runtime;
  std::string dir;
  std::shared_ptr<sqlite::Engine> engine;
  std::shared_ptr<SqlDatabase> database;
  std::shared_ptr<Log> log = std::make_shared<Log>();
  Options options;
  std::vector<std::string> errors;
};

Options options_of(const std::string& yaml) {
  config::Diagnostics diagnostics;
  const auto document = config::load_text(yaml, {}, diagnostics);
  EXPECT_TRUE(document) << config::format_text(diagnostics);
  auto options = read_options(*document, diagnostics);
  EXPECT_EQ(diagnostics.error_count(), 0U) << config::format_text(diagnostics);
  return options;
}

// proves: O-03
TEST_F(OutboxTest, TheOptionNamesTheTable) {
  EXPECT_EQ(Options().table, "outbox");
  options = options_of("{table: video_outbox, database: postgres}");
  EXPECT_EQ(options.table, "video_outbox");
  make_table();
  ASSERT_TRUE(publish(1, "a")[0]);
  EXPECT_EQ(number("SELECT count(*) FROM video_outbox"), 1);
  EXPECT_FALSE(*run_blocking(database->describe(Context(), "outbox")));
}

// proves: O-06
TEST_F(OutboxTest, PollingFindsRowsWhoeverInsertedThem) {
  options = options_of("{publisher: {mode: polling, interval: 30ms}}");
  make_table();
  Relay job = relay();
  EXPECT_EQ(job.info().interval, std::chrono::milliseconds(30));
  EXPECT_EQ(rounds(job), 0U);
  // Not through the publisher: as another process does it.
  Batch<Statement> rows;
  rows.push_back(
      {"INSERT INTO outbox (topic, message_id, aggregate_id, body) VALUES ('orders', 'm1', 'k', x'7b7d')", {}});
  ASSERT_TRUE(run_blocking(database->atomically(Context(), std::move(rows))));
  EXPECT_EQ(rounds(job), 1U);
  EXPECT_EQ(log->ids, std::vector<std::string>{"m1"});
}

// proves: O-08
TEST_F(OutboxTest, ARoundIsBounded) {
  options = options_of("{publisher: {batch_size: 10}}");
  make_table();
  publish(25, "k");
  Relay job = relay();
  for (const std::uint64_t expected : {10U, 10U, 5U, 0U}) EXPECT_EQ(rounds(job), expected);
  EXPECT_EQ(log->batches, (std::vector<std::size_t>{10, 10, 5}));
  EXPECT_EQ(pending(), 0);
}

// proves: O-20
TEST_F(OutboxTest, ATableThatIsGoneIsNoMistakeOfTheClient) {
  const auto results = publish(1, "k");
  ASSERT_FALSE(results[0]);
  EXPECT_EQ(results[0].error().code, Code::internal) << results[0].error().describe();
  EXPECT_EQ(results[0].error().reason, "SQL_ERROR");
}

TEST_F(OutboxTest, ALogThatIsDownFailsNoPublish) {
  make_table();
  log->down = true;
  Relay job = relay();
  for (const auto& result : publish(3, "k")) EXPECT_TRUE(result);
  EXPECT_EQ(rounds(job), 0U);
  EXPECT_EQ(errors, std::vector<std::string>{"LOG_DOWN"});
  for (const auto& result : publish(2, "k", 3)) EXPECT_TRUE(result);
  EXPECT_EQ(pending(), 5);

  log->down = false;
  Relay next = relay();  // a key that failed waits for a while in the first one
  EXPECT_EQ(rounds(next), 5U);
  EXPECT_EQ(log->ids, (std::vector<std::string>{"k0", "k1", "k2", "k3", "k4"}));
}

// There is no cursor: a transaction that took its id early and commits late is found like any other.
TEST_F(OutboxTest, ALateCommitIsNotSkipped) {
  options.strategy = CleanupStrategy::mark_published;
  make_table();
  Batch<Statement> rows;
  rows.push_back(
      {"INSERT INTO outbox (id, topic, message_id, aggregate_id, body) VALUES (100, 'orders', 'late id', 'k', x'7b7d')",
       {}});
  ASSERT_TRUE(run_blocking(database->atomically(Context(), std::move(rows))));
  Relay job = relay();
  EXPECT_EQ(rounds(job), 1U);
  rows.clear();
  rows.push_back(
      {"INSERT INTO outbox (id, topic, message_id, aggregate_id, body) VALUES (50, 'orders', 'early id', 'k', x'7b7d')",
       {}});
  ASSERT_TRUE(run_blocking(database->atomically(Context(), std::move(rows))));
  EXPECT_EQ(rounds(job), 1U);
  EXPECT_EQ(log->ids, (std::vector<std::string>{"late id", "early id"}));
}

TEST_F(OutboxTest, AFailingKeyHoldsBackItsOwnRowsOnly) {
  make_table();
  publish(2, "good");
  publish(3, "bad");
  publish(2, "good", 2);
  log->refused_key = "bad";
  Relay job = relay();
  EXPECT_EQ(rounds(job), 4U);
  EXPECT_EQ(log->ids, (std::vector<std::string>{"good0", "good1", "good2", "good3"}));
  EXPECT_EQ(pending(), 3);

  log->refused_key.clear();
  Relay next = relay();
  EXPECT_EQ(rounds(next), 3U);
  EXPECT_EQ(std::vector<std::string>(log->ids.end() - 3, log->ids.end()),
            (std::vector<std::string>{"bad0", "bad1", "bad2"}));
}

// A process stopped between the log's acknowledgement and the mark, while another has taken over: both publish the row.
// proves: O-15
TEST_F(OutboxTest, ARepeatCarriesTheSameIds) {
  make_table();
  publish(2, "k");
  Relay first = relay();
  Relay second = relay();
  log->meanwhile = &second;
  EXPECT_EQ(rounds(first), 2U);
  EXPECT_EQ(log->ids, (std::vector<std::string>{"k0", "k1", "k0", "k1"}));
  EXPECT_EQ(pending(), 0);
}

TEST_F(OutboxTest, WhoHasLostTheLeaseDoesNotPublish) {
  make_table();
  publish(1, "k");
  Relay job = relay();
  EXPECT_EQ(rounds(job, -std::chrono::milliseconds(1)), 0U);
  EXPECT_TRUE(log->ids.empty());
  EXPECT_EQ(pending(), 1);
}

// What the log never takes waits, is shown, and is not asked for at full speed.
TEST_F(OutboxTest, ARoundThatPublishesNothingDoesNotBeginAnewAtOnce) {
  make_table();
  publish(1, "k");
  log->refused_key = "k";
  log->refusal = Code::invalid_argument;
  Relay job = relay();
  std::string notes;
  for (std::uint32_t shard = 0; shard < job.info().shards; ++shard) {
    const auto round =
        run_blocking(job.round(Context(), shard, Grant{"relay", "me", 1, Clock::now() + std::chrono::minutes(1)}));
    ASSERT_TRUE(round);
    EXPECT_EQ(round->items, 0U);
    EXPECT_FALSE(round->more);
    notes += round->note;
  }
  EXPECT_NE(notes.find("LOG_DOWN"), std::string::npos);
  EXPECT_EQ(pending(), 1);
}

// More rows that keep failing than the relay remembers, and than it could try again in the time that they wait: what
// stands behind them gets through all the same.
TEST_F(OutboxTest, RowsThatKeepFailingDoNotStarveTheOthers) {
  make_table();
  for (int i = 0; i < 20; ++i) publish(1000, "bad", 1000 * i, false);
  publish(10, "good", 0, false);
  log->refuses = [](const Message& m) { return m.id.starts_with("bad"); };
  log->refusal = Code::invalid_argument;
  Relay job = relay();
  std::uint64_t published = 0;
  for (int i = 0; i < 40 && published < 10; ++i) published += rounds(job);
  EXPECT_EQ(published, 10U);
  EXPECT_EQ(pending(), 20'000);

  // Now and then each of them is tried again.
  log->refuses = nullptr;
  for (int i = 0; i < 400 && pending() > 0; ++i) rounds(job);
  EXPECT_EQ(pending(), 0);
}

TEST_F(OutboxTest, KeysThatKeepFailingDoNotStarveTheOthers) {
  make_table();
  publish_bad_keys(20'000);
  for (const char* key : {"good", "better", "best"}) publish(5, key);
  log->refuses = [](const Message& m) { return m.key.starts_with("bad"); };
  log->refusal = Code::invalid_argument;
  Relay job = relay();
  std::uint64_t published = 0;
  for (int i = 0; i < 40 && published < 15; ++i) published += rounds(job);
  EXPECT_EQ(published, 15U);
}

// A failing row that the relay does not remember still holds back the later ones of its key.
TEST_F(OutboxTest, WhatIsNotRememberedKeepsItsOrder) {
  make_table();
  publish_bad_keys(20'000);
  for (int i = 0; i < 20; ++i) publish(1, "k" + std::to_string(i) + "-");
  publish_bad_keys(6'000, 20'000);
  for (int i = 0; i < 20; ++i) publish(2, "k" + std::to_string(i) + "-", 1);
  bool accepts = false;
  log->refuses = [&](const Message& m) { return m.key.starts_with("bad") || (!accepts && m.id == m.key + "0"); };
  log->refusal = Code::invalid_argument;
  Relay job = relay();
  for (int i = 0; i < 60; ++i) EXPECT_EQ(rounds(job), 0U);
  accepts = true;
  for (int i = 0; i < 400 && log->ids.size() < 60; ++i) rounds(job);
  ASSERT_EQ(log->ids.size(), 60U);
  std::map<std::string, std::vector<std::string>> by_key;
  for (std::size_t i = 0; i < log->ids.size(); ++i) by_key[log->keys[i]].push_back(log->ids[i]);
  for (const auto& [key, ids] : by_key) EXPECT_EQ(ids, (std::vector<std::string>{key + "0", key + "1", key + "2"}));
}

// One topic that is down behind a batch of its rows is not the whole log.
TEST_F(OutboxTest, ABatchThatFindsTheLogDownIsFollowedByTheNext) {
  options = options_of("{publisher: {batch_size: 10}}");
  make_table();
  publish(30, "down", 0, false);
  publish(5, "up", 0, false);
  log->refuses = [](const Message& m) { return m.id.starts_with("down"); };
  Relay job = relay();
  std::uint64_t published = 0;
  for (int i = 0; i < 5 && published == 0; ++i) published += rounds(job);
  EXPECT_EQ(published, 5U);
  EXPECT_EQ(errors, (std::vector<std::string>{"LOG_DOWN", "LOG_DOWN", "LOG_DOWN"}));
  log->refuses = nullptr;
  for (int i = 0; i < 10; ++i) published += rounds(job);
  EXPECT_EQ(published, 35U);
}

// Rows that are kept carry the time of publishing, and go when their retention is over.
TEST_F(OutboxTest, MarkedRowsGoAfterTheirRetention) {
  options = options_of("{publisher: {cleanup: {strategy: mark_published, retention: 3600}}}");
  make_table();
  publish(2, "k");
  Relay job = relay();
  EXPECT_EQ(rounds(job), 2U);
  EXPECT_EQ(number("SELECT count(*) FROM outbox WHERE published_at IS NOT NULL"), 2);
  EXPECT_EQ(pending(), 0);

  Cleanup cleanup("orders", database, options);
  EXPECT_EQ(run_blocking(cleanup.round(Context(), 0, {}))->items, 0U);
  options.retention = Clock::duration(0);
  Cleanup over("orders", database, options);
  EXPECT_EQ(run_blocking(over.round(Context(), 0, {}))->items, 2U);
  EXPECT_EQ(number("SELECT count(*) FROM outbox"), 0);
}

TEST(OutboxHeaders, AnyBytesComeBackAndNoneIsAZeroCharacter) {
  const Headers headers{{"text", Bytes("\xc3\xbc \"")},
                        {"zero", Bytes(std::string("a\0b", 3))},
                        {"bytes", Bytes("\xff")},
                        {"text", Bytes()}};
  const std::string json = headers_to_json(headers);
  EXPECT_EQ(json.find("u0000"), std::string::npos) << json;  // which PostgreSQL's JSONB refuses
  const auto back = headers_from_json(json);
  ASSERT_TRUE(back) << back.error().describe();
  EXPECT_EQ(*back, headers);
  const Headers only{{"zero", Bytes(std::string(1, '\0'))}};
  EXPECT_EQ(*headers_from_json(headers_to_json(only)), only);
}

}  // namespace
}  // namespace prism::outbox
