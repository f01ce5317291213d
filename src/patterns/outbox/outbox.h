// Outbox: a publish is a committed database row first; a background relay brings the rows to the log.
// https://microservices.io/patterns/data/transactional-outbox.html; RFC-009 section 7, RFC-014.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "patterns/assembly.h"
#include "patterns/components.h"
#include "patterns/job.h"
#include "patterns/outbox/counted.h"
#include "patterns/outbox/options.h"
#include "patterns/pattern.h"

namespace prism::outbox {

extern const PatternInfo kInfo;

// Inserts the messages of a call as rows of one transaction and answers when it is committed. What is answered is the
// database's position and durability. A message that the destination could not take as one record of at most
// `max_record_bytes` is refused: nothing is acknowledged that the relay could never publish.
std::unique_ptr<Publisher> make_publisher(std::shared_ptr<SqlDatabase> database, Options options,
                                          std::size_t max_record_bytes, Engine engine,
                                          std::shared_ptr<Counted> counted = std::make_shared<Counted>());

// Publishes pending rows to what was below the outbox in the chain, then removes or marks them.
//
// Order and loss: there is no cursor, so a row that commits late is not skipped. Rows of one key are in one lane, lanes
// belong to one shard, a shard has one batch in flight and takes its lowest ids first; a row that fails holds back the
// later ones of its key only. However many rows keep failing, the others get their turn: what failed waits for its time
// and then takes a part of a round only, of what failed no more than a bound is remembered, and a round that got
// nothing through is followed by one that begins behind it. A second runner (a process stopped past its lease and let
// go again) repeats rows that the first has published: repeats carry the same id, and first occurrences stay in order.
class Relay final : public Job {
 public:
  Relay(std::string namespace_name, std::shared_ptr<SqlDatabase> database, std::shared_ptr<Publisher> destination,
        Options options, std::shared_ptr<Counted> counted = std::make_shared<Counted>());
  const JobInfo& info() const noexcept override { return info_; }
  Task<Result<Round>> round(Context context, std::uint32_t shard, Grant grant) override;
  Task<void> wait(Context context, EventLoop& loop, Clock::duration at_most) override;

 private:
  struct Backoff {
    Clock::time_point until;
    Clock::duration delay;
  };
  // Only its own round touches a shard's state.
  struct Shard {
    std::map<std::string, Backoff> keys;   // that failed
    std::map<std::int64_t, Backoff> rows;  // without a key that failed, and rows that cannot be read
    std::vector<std::int64_t> unmarked;    // published, and then marking failed: before anything else it is done again
    std::string failure;                   // of what is held back
    std::int64_t after = 0;                // the next round begins with the rows above this id

    bool full() const;  // no more is remembered of what fails
    void hold_back(const std::string& key, std::int64_t id);
  };
  // Some of what is held back and whose time has come: the lowest row of a key, or a row.
  struct Again {
    std::vector<std::string> keys;
    std::vector<std::int64_t> ids;
  };
  Again due(const Shard& shard) const;
  // The ids of the rows that are tried again now.
  Task<Result<std::set<std::int64_t>>> repeats(Context context, Shard& shard);
  Task<Result<void>> mark(Context context, std::vector<std::int64_t> ids);
  std::shared_ptr<SqlDatabase> database_;
  std::shared_ptr<Publisher> destination_;
  std::shared_ptr<Counted> counted_;
  Options options_;
  JobInfo info_;
  std::vector<Shard> shards_;
};

// Removes published rows whose retention has passed, in small batches.
class Cleanup final : public Job {
 public:
  Cleanup(std::string namespace_name, std::shared_ptr<SqlDatabase> database, Options options);
  const JobInfo& info() const noexcept override { return info_; }
  Task<Result<Round>> round(Context context, std::uint32_t shard, Grant grant) override;

 private:
  std::shared_ptr<SqlDatabase> database_;
  Options options_;
  JobInfo info_;
};

std::unique_ptr<Pattern> make_pattern(Options options);
PatternType pattern_type();

}  // namespace prism::outbox
