// ObjectStore: large values by key, streamed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/types.h"
#include "runtime/context.h"
#include "runtime/payload.h"
#include "runtime/task.h"

namespace prism {

struct PutOptions {
  bool if_absent = false;  // OBJECT_EXISTS otherwise
  std::string if_match;    // an etag; PRECONDITION_FAILED otherwise; empty: no condition
  std::string content_type;
  std::map<std::string, std::string> metadata;
};

struct ObjectInfo {
  std::string key;
  std::string etag;
  std::uint64_t size = 0;
  std::uint32_t crc32c = 0;  // of the whole content; from put and head (list may leave it 0)
  WallTime modified{};       // when the put became visible
  std::string content_type;
  std::map<std::string, std::string> metadata;
};

struct ObjectFeatures {
  Durability durability = Durability::memory;
  bool lifecycle = false;  // the store can expire objects by itself
};

// Keys are relative paths: 1 to 1024 bytes of UTF-8 without NUL, no empty, "." or ".." segment; else
// INVALID_OBJECT_KEY. Any thread; any number of calls at once; resumes on a loop thread.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  virtual const ObjectFeatures& features() const noexcept = 0;
  // All or nothing: the object is visible only when the whole payload is stored durably, and nothing is left of a
  // failed or cancelled put but what abort_uploads() removes. A payload that fails fails the put with its error; one
  // that is not as long as its size() said with PAYLOAD_SIZE_MISMATCH. DISK_FULL; INVALID_METADATA (too large for the
  // store).
  virtual Task<Result<ObjectInfo>> put(Context context, std::string key, Payload payload, PutOptions options) = 0;
  // From byte `from`, at most `n` bytes (none: to the end). The payload checks the stored checksum when it is read from
  // 0 to the end: OBJECT_DAMAGED (DATA_LOSS). OBJECT_NOT_FOUND; RANGE_NOT_SATISFIABLE where `from` is greater than the
  // size.
  virtual Task<Result<std::pair<ObjectInfo, Payload>>> get(Context context, std::string key, std::uint64_t from,
                                                           std::optional<std::uint64_t> n) = 0;
  virtual Task<Result<ObjectInfo>> head(Context context, std::string key) = 0;             // OBJECT_NOT_FOUND
  virtual Task<Batch<Result<void>>> remove(Context context, Batch<std::string> keys) = 0;  // an absent key is a success
  // In key order (bytes), keys greater than `after`.
  virtual Task<Result<Batch<ObjectInfo>>> list(Context context, std::string prefix, std::string after,
                                               std::size_t max) = 0;
  // Removes what unfinished puts begun before `older_than` have left; says how many.
  virtual Task<Result<std::size_t>> abort_uploads(Context context, std::string prefix, WallTime older_than) = 0;
  virtual Task<void> close(Context context) = 0;
};

}  // namespace prism
