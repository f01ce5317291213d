// Consumer: a member of a consumer group.
//
// Which partitions it owns, and how far each has come, stands in the file: prism_members (who lives, until when) and
// prism_progress (owner, epoch, what is acknowledged). Every member works out the same fair shares from the same rows,
// gives up what it has too much of and takes what is free: there is no leader. A partition's epoch grows with every new
// owner and every seek; whoever writes progress names the epoch he owns in the same transaction, so that a stopped
// process that goes on later changes nothing.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backends/sqlite/log_state.h"
#include "capabilities/delivery_window.h"

namespace prism::sqlite {

// The tables; part of the log's schema.
extern const char* const kGroupSchema;

// The group's row and its progress in every partition, made where they are missing. The group's number.
Result<std::int64_t> ensure_group(Connection& connection, const Topic& topic, const std::string& group,
                                  const Start& start);
// Moves the group: whoever owns a partition finds another epoch.
Result<void> seek_group(Connection& connection, const Topic& topic, const std::string& group, const Start& start);

class Consumer : public std::enable_shared_from_this<Consumer> {
 public:
  Consumer(Engine& engine, std::shared_ptr<Topic> topic, std::int64_t group, GroupSpec spec,
           const EventLogOptions& options);

  std::int64_t group() const noexcept { return group_; }
  void attach();  // makes it known to its topic, until leave()
  // Comes to terms with the other members: heartbeat, shares, new epochs.
  static Task<Result<void>> sync(std::shared_ptr<Consumer> self, Context context);
  // Renews and syncs until it has left or is told to stop; then leaves. One for each consumer.
  static Task<void> keep(std::shared_ptr<Consumer> self, std::stop_token stop);
  static Task<Result<Batch<Delivery>>> receive(std::shared_ptr<Consumer> self, Context context, std::size_t max,
                                               std::size_t max_bytes);
  static Task<Batch<Settled>> settle(std::shared_ptr<Consumer> self, Context context, Batch<Settle> settles);
  // Gives everything back. Idempotent.
  static Task<void> leave(std::shared_ptr<Consumer> self);
  void abandon();  // its user has gone without close(): keep() will leave

  // Any thread: the group was moved, or its members have changed.
  void moved();
  void members_changed(CompletionBatch& batch);

 private:
  struct Owned {
    DeliveryWindow window;
    std::uint64_t written_version = 0;  // by the open transaction of this number
    std::uint64_t written_transaction = 0;
    std::uint64_t durable_version = 0;
    std::optional<Clock::time_point> drain_until;  // it is to move to another member
    bool end_known = false;                        // Topic::ends holds at least what was there when it was taken over
  };
  struct Plan {
    struct Part {
      std::uint32_t partition;
      std::uint64_t epoch;
      std::vector<std::uint64_t> wanted;
      bool fetch;
      std::uint64_t from;
    };
    std::vector<Part> parts;
    DeliveryBudget budget;
    std::uint64_t foreign = 0;
    bool check_ends = false;
    bool anything = false;
  };
  struct Pass {
    Batch<Delivery> deliveries;
    bool progressed = false;
  };
  class SyncOp;
  class SettleOp;
  class LeaveOp;
  friend class SyncOp;
  friend class SettleOp;
  friend class LeaveOp;

  Plan plan(std::size_t max, std::size_t max_bytes, Clock::time_point now);
  Result<Pass> run(Connection& connection, Plan& plan);
  std::optional<Clock::time_point> next_tick();
  Clock::duration until_due(Clock::time_point now);
  bool has_unwritten();
  Owned* find(std::uint32_t partition, std::uint64_t epoch);  // mutex_ held
  void update_mask();                                         // mutex_ held
  void wake_peers(CompletionBatch& batch);
  DeliveryWindow::Limits limits() const;
  std::string make_token(std::uint32_t partition, std::uint64_t offset, std::uint64_t epoch,
                         std::uint32_t serial) const;

  Engine& engine_;
  const std::shared_ptr<Topic> topic_;
  const std::int64_t group_;
  const GroupSpec spec_;
  const EventLogOptions options_;
  const std::string member_;
  const std::uint16_t nonce_;  // tells tokens of different consumers apart
  const std::shared_ptr<Listener> listener_;
  Notifier keeper_;

  std::atomic<bool> sync_wanted_{false};
  std::atomic<bool> left_{false};
  std::atomic<bool> abandoned_{false};

  std::mutex mutex_;
  std::map<std::uint32_t, Owned> owned_;  // guarded by mutex_, as is all below
  std::int64_t generation_ = -1;          // of the group's members
  std::uint64_t foreign_seen_ = 0;        // Engine::foreign_generation() when the ends were last looked up
  Clock::time_point next_sync_{};
  std::optional<Clock::time_point> write_due_;  // deliveries are to be noted by then
  std::uint32_t serial_ = 0;
  std::uint32_t rotation_ = 0;
};

}  // namespace prism::sqlite
