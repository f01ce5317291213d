// ObjectStore on a folder: the embedded twin of an object store. README.md describes what is where on disk.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "capabilities/object_store.h"
#include "runtime/byte_budget.h"
#include "runtime/loop.h"

namespace prism::filesystem {

class Bucket;

struct Options {
  std::string root;    // a folder; made if it is missing. Any number of processes may share it.
  std::string bucket;  // 1 to 128 letters, digits, '-', '_', '.'
};

// Durability: fsync. Each stream being stored holds one piece (1 MiB) of the budget, and a second one while there is
// room: the next piece is then received while the last is written. Reading ahead takes at most a quarter of the budget
// and goes on without when that is used up.
class ObjectStore final : public prism::ObjectStore {
 public:
  // Blocking, a few milliseconds: at start, or offloaded. The runtime must outlive the store and the payloads it gives
  // out. INVALID_BUCKET, STORAGE_*.
  static Result<std::shared_ptr<ObjectStore>> open(Runtime& runtime, const Options& options,
                                                   std::shared_ptr<ByteBudget> budget);
  ~ObjectStore() override;

  const ObjectFeatures& features() const noexcept override;
  // A stopped context ends a put at the next piece; a commit that has begun is finished. Reasons beside those of the
  // interface: DISK_FULL, INVALID_METADATA, PAYLOAD_SIZE_MISMATCH (not the size it said it had), UPLOAD_ABORTED,
  // STORAGE_*.
  Task<Result<ObjectInfo>> put(Context context, std::string key, Payload payload, PutOptions options) override;
  // RANGE_NOT_SATISFIABLE: `from` is greater than the size. What was opened stays readable when it is replaced or
  // removed.
  Task<Result<std::pair<ObjectInfo, Payload>>> get(Context context, std::string key, std::uint64_t from,
                                                   std::optional<std::uint64_t> n) override;
  Task<Result<ObjectInfo>> head(Context context, std::string key) override;
  Task<Batch<Result<void>>> remove(Context context, Batch<std::string> keys) override;
  // Damaged objects are listed too, with no etag.
  Task<Result<Batch<ObjectInfo>>> list(Context context, std::string prefix, std::string after,
                                       std::size_t max) override;
  // Leaves uploads alone whose put is still under way, in whatever process.
  Task<Result<std::size_t>> abort_uploads(Context context, std::string prefix, WallTime older_than) override;
  // Nothing is kept open between calls.
  Task<void> close(Context context) override;

 private:
  ObjectStore(Runtime& runtime, std::unique_ptr<Bucket> bucket, std::shared_ptr<ByteBudget> budget);

  Runtime& runtime_;
  const std::unique_ptr<Bucket> bucket_;
  const std::shared_ptr<ByteBudget> budget_;
  const std::shared_ptr<ByteBudget> read_ahead_;
};

}  // namespace prism::filesystem
