// Outbox: a publish is a committed database row first; a background relay brings the rows to the log.
// https://microservices.io/patterns/data/transactional-outbox.html; RFC-009 section 7, RFC-014.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "patterns/assembly.h"
#include "patterns/components.h"
#include "patterns/job.h"
#include "patterns/outbox/options.h"
#include "patterns/pattern.h"

namespace prism::outbox {

extern const PatternInfo kInfo;

// Inserts the messages of a call as rows of one transaction and answers when it is committed. What is answered is the
// database's position and durability. A message that the destination could not take as one record of at most
// `max_record_bytes` is refused: nothing is acknowledged that the relay could never publish.
std::unique_ptr<Publisher> make_publisher(std::shared_ptr<SqlDatabase> database, Options options,
                                          std::size_t max_record_bytes);

// Publishes pending rows to what was below the outbox in the chain, then removes or marks them.
//
// Order and loss: there is no cursor, so a row that commits late is not skipped. Rows of one key are in one lane, lanes
// belong to one shard, a shard has one batch in flight and takes its lowest ids first; a row that fails holds back the
// later ones of its key only. A second runner (a process stopped past its lease and let go again) repeats rows that the
// first has published: repeats carry the same id, and first occurrences stay in order.
class Relay final : public Job {
 public:
  Relay(std::string namespace_name, std::shared_ptr<SqlDatabase> database, std::shared_ptr<Publisher> destination,
        Options options);
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
  };
  Task<Result<void>> mark(Context context, std::vector<std::int64_t> ids);
  std::shared_ptr<SqlDatabase> database_;
  std::shared_ptr<Publisher> destination_;
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
