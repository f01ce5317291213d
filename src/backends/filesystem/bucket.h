// The folders of one bucket and what is done in them. Blocking: offload threads only. Thread-safe; any number of
// processes may use the same bucket.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backends/filesystem/file.h"
#include "backends/filesystem/keys.h"
#include "capabilities/object_store.h"

namespace prism::filesystem {

class Bucket {
 public:
  // Makes what is missing of <root>/<bucket>/{objects,uploads,locks}.
  static Result<std::unique_ptr<Bucket>> open(const std::string& root, const std::string& name);

  // Opens an object and reads its footer. OBJECT_NOT_FOUND, OBJECT_DAMAGED.
  Result<std::pair<Fd, ObjectInfo>> find(const std::string& key) const;
  std::vector<Result<void>> remove(const std::vector<std::string>& keys, const Context& context);
  Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after, std::size_t max,
                                       const Context& context) const;
  Result<std::size_t> abort_uploads(const std::string& prefix, WallTime older_than, const Context& context);

 private:
  friend class Upload;
  struct Walk;
  Bucket() = default;

  // Opens a folder below `top`, making what is missing. If `durable`, it and all above it survive a loss of power when
  // this returns. ENOENT: it was pruned meanwhile, try again.
  int make_folder(int top, const std::string& folder, bool durable, Fd& out);
  // Removes the folder and those above it as long as they are empty. A put that needs one makes it again.
  static void prune(int top, std::string folder) noexcept;
  int sync_nearest(std::string folder) const;  // below objects/
  // Held by everybody who changes what a key means, exclusively by those who look first (if_match). Holds among
  // processes too.
  int lock_key(const std::string& key, bool exclusive, Fd& out) const;

  Fd objects_;
  Fd uploads_;
  Fd locks_;
  // Folders known to be durable: device, inode, time of birth (inode numbers are used again).
  using Identity = std::tuple<std::uint64_t, std::uint64_t, std::int64_t, std::uint32_t>;
  std::mutex mutex_;
  std::set<Identity> durable_;  // guarded by mutex_
};

// One put: a private file under uploads/, locked as long as its process lives, that becomes the object by a rename.
// Used by one thread at a time.
class Upload {
 public:
  Upload(Bucket& bucket, std::string key, PutOptions options);
  ~Upload() { discard(); }
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  // Appends. The file is made by the first call.
  Result<void> write(std::span<const Bytes> pieces);
  // Makes all durable and the object visible. Once it has failed only discard() may follow.
  Result<ObjectInfo> publish();
  // Removes what is not published.
  void discard() noexcept;

 private:
  Result<void> create();
  Result<void> check_conditions(int folder, const std::string& file) const;  // of put(), as far as they can be told now
  Error error(int number) const;

  Bucket& bucket_;
  const PutOptions options_;
  const ObjectPath path_;
  ObjectInfo info_;
  Fd fd_;
  std::string name_;           // of the file, below uploads/
  std::uint64_t flushed_ = 0;  // up to here write-back was started
};

}  // namespace prism::filesystem
