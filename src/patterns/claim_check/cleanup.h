// Clean-up of checked-in payloads: after consumption, by age, and of orphans.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "capabilities/event_log.h"
#include "capabilities/key_value_store.h"
#include "capabilities/object_store.h"
#include "patterns/assembly.h"
#include "patterns/claim_check/counted.h"
#include "patterns/claim_check/options.h"
#include "patterns/job.h"

namespace prism::claim_check {

// What both jobs work on.
struct Site {
  std::string namespace_name;
  Options options;  // bucket filled in
  std::shared_ptr<EventLog> log;
  std::shared_ptr<ObjectStore> store;
  std::shared_ptr<KeyValueStore> state;
  std::shared_ptr<Topics> topics;
  std::shared_ptr<PendingReferences> pending;
  std::vector<std::string> groups;  // declared; empty: the groups that exist on a topic count
  std::shared_ptr<Counted> counted = std::make_shared<Counted>();
  std::shared_ptr<Retrieved> retrieved;  // of a decoder; null: not counted
};

// By partition: every group that counts has acknowledged all records below it. 0 where one has not begun; UINT64_MAX
// where no group counts.
Task<Result<std::vector<std::uint64_t>>> lowest_floors(Context context, Site site, TopicInfo topic);

// The state store's key of the cleaner's cursor: every reference below it has been acknowledged by all groups and its
// object deleted. The value is the offset in decimal.
std::string cursor_key(const std::string& namespace_name, const std::string& topic, const Id128& incarnation,
                       std::uint32_t partition);

// Walks each partition below the lowest acknowledged floor of all groups, deletes what the records refer to, then moves
// its cursor. No state per message; a repeat deletes what is gone.
class Cleaner final : public Job {
 public:
  explicit Cleaner(Site site);
  const JobInfo& info() const noexcept override { return info_; }
  Task<Result<Round>> round(Context context, std::uint32_t shard, Grant grant) override;

 private:
  Task<Result<Round>> clean(Context context, std::string topic);
  Task<Result<Round>> clean_partition(Context context, TopicInfo topic, std::uint32_t partition, std::uint64_t floor);
  Site site_;
  JobInfo info_;
};

// Removes objects older than the expiry, and, where payloads are deleted on consumption, objects older than orphan_age
// that neither a record at or above the cleaner's cursor nor a pending row refers to: their publish never committed.
// Pending rows are read before the log's end, since a row is on the log before it stops being pending. Objects older
// than what the state store knows of the namespace are not judged (a lost or new state store does not know all topics):
// they expire by age.
class Sweeper final : public Job {
 public:
  explicit Sweeper(Site site);
  const JobInfo& info() const noexcept override { return info_; }
  Task<Result<Round>> round(Context context, std::uint32_t shard, Grant grant) override;

 private:
  using Sizes = std::map<std::string, std::uint64_t>;                  // of objects, in bytes
  Task<Result<std::uint64_t>> remove(Context context, Sizes objects);  // by key
  Task<Result<void>> strike_out(Context context, Sizes* candidates);   // by id: those that something refers to
  Site site_;
  JobInfo info_;
  std::set<std::string> referred_;  // ids that were found referred to, of objects that still exist
};

// Has the cleaner passed every record that all groups have acknowledged?
Task<Result<bool>> caught_up(Context context, Site site);

// Does another record than the one at `at` refer to the same payload, and has every group that counts acknowledged it?
// A relay that was killed, or lost its lease, publishes a message again; its payload may be gone by the time the repeat
// is delivered. Records are searched from the upload on, up to 64 MiB of them, and of a keyed message only in its own
// partition, where both are: false also where the other one stands further behind.
Task<Result<bool>> acknowledged_elsewhere(Context context, Site site, std::string topic, std::string claim_check_id,
                                          PositionPart at, bool keyed);

// Since when the state store knows the namespace: noted when it is first asked.
Task<Result<WallTime>> known_since(Context context, std::shared_ptr<KeyValueStore> state, std::string namespace_name);

// Reads the cursor; 0 where there is none.
Task<Result<std::uint64_t>> read_cursor(Context context, std::shared_ptr<KeyValueStore> state, std::string key);

}  // namespace prism::claim_check
