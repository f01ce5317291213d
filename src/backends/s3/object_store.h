// ObjectStore in a bucket of S3. README.md says what is kept where.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "backends/s3/client.h"
#include "backends/s3/object_meta.h"
#include "capabilities/object_store.h"
#include "runtime/byte_budget.h"

namespace prism::s3 {

// A put of more than one part: at most `parallel_parts` of them in memory, each with its share of the budget, of which
// the first is waited for and the others are taken while there is room. A get receives 1 MiB ahead, out of at most a
// quarter of the budget, or a piece (128 KiB) when that is used up; what breaks off is gone on with.
class ObjectStore final : public prism::ObjectStore {
 public:
  ObjectStore(std::shared_ptr<Client> client, std::string bucket, std::shared_ptr<ByteBudget> budget);
  ~ObjectStore() override;

  // Durability: replicated at AWS; fsync with an endpoint, whose copies are not known.
  const ObjectFeatures& features() const noexcept override { return features_; }
  Task<Result<ObjectInfo>> put(Context context, std::string key, Payload payload, PutOptions options) override;
  // Of an object that is replaced while it is read, the rest is OBJECT_CHANGED where it has to be asked for again.
  Task<Result<std::pair<ObjectInfo, Payload>>> get(Context context, std::string key, std::uint64_t from,
                                                   std::optional<std::uint64_t> n) override;
  Task<Result<ObjectInfo>> head(Context context, std::string key) override;
  Task<Batch<Result<void>>> remove(Context context, Batch<std::string> keys) override;
  // Skips objects whose keys no put takes ("a/", "a//b").
  Task<Result<Batch<ObjectInfo>>> list(Context context, std::string prefix, std::string after,
                                       std::size_t max) override;
  // Leaves the uploads of this store's own puts alone that are under way.
  Task<Result<std::size_t>> abort_uploads(Context context, std::string prefix, WallTime older_than) override;
  Task<void> close(Context context) override;

  // Removes the object if it has this etag. False: it has another one or is gone, the server does not heed conditions
  // of removals (which is tried out once), or cannot be asked now.
  Task<bool> remove_if(Context context, std::string key, std::string etag);

  // Is the bucket there? Sees to its life cycle, once, where the options ask for that.
  Task<Result<void>> check(Context context);
  // The bucket's life cycle. STORAGE_UNSUPPORTED where the server has none.
  Task<Result<std::vector<LifecycleRule>>> lifecycle(Context context);
  // Adds the rule, or replaces the one of its id; leaves the others as they are.
  Task<Result<void>> set_lifecycle(Context context, LifecycleRule rule);

 private:
  friend class Upload;
  Task<Result<void>> remove_one(Context context, std::string key, std::string if_match = {});
  Task<bool> removes_conditionally(Context context, std::string beside);
  Task<Result<std::vector<NotDeleted>>> remove_some(Context context, std::vector<std::string> keys);
  Task<Result<std::string>> lifecycle_document(Context context);

  const std::shared_ptr<Client> client_;
  const std::string bucket_;
  const std::shared_ptr<ByteBudget> budget_, read_ahead_;
  const ObjectFeatures features_;
  // Does the server keep checksums of whole objects? Until one says no.
  std::atomic<bool> whole_checksums_{true};
  std::atomic<bool> lifecycle_seen_to_{false};
  std::mutex mutex_;
  std::set<std::string> uploads_;             // under way; guarded by mutex_
  std::optional<bool> conditional_removals_;  // does the server have them; guarded by mutex_
};

}  // namespace prism::s3
