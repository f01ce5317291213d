// KeyValueStore: values by key, with versions, compare-and-set and expiry.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "capabilities/position.h"
#include "runtime/context.h"
#include "runtime/task.h"

namespace prism {

// Grows with every change of the key; never re-used for a key, not even after a delete.
struct Version {
  std::uint64_t value = 0;
  friend bool operator==(const Version&, const Version&) = default;
};

struct Entry {
  Bytes value;
  Version version;
  std::optional<WallTime> expires;
};

struct Mutation {
  std::string key;
  std::optional<Bytes> value;          // none: delete
  std::optional<Version> expect;       // apply only while the key has this version, else VERSION_MISMATCH
  bool expect_absent = false;          // apply only while the key does not exist, else ALREADY_EXISTS
  std::optional<Clock::duration> ttl;  // none: for ever
};

struct Written {
  Version version;
  Position at;
};

struct KeyPage {
  std::vector<std::pair<std::string, Entry>> entries;  // in key order (bytes)
  bool more = false;                                   // go on with after = the last key
};

struct KeyValueFeatures {
  Durability durability = Durability::memory;
  std::size_t max_key_bytes = 0;
  std::size_t max_value_bytes = 0;
};

// Any thread; any number of calls at once; resumes on a loop thread. An expired entry is never seen.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  virtual const KeyValueFeatures& features() const noexcept = 0;
  // `min`: the answer is at least as new as this position (empty: whatever is at hand).
  virtual Task<Batch<Result<std::optional<Entry>>>> get(Context context, Batch<std::string> keys, Position min) = 0;
  // The entries are independent; entries of one key are applied in the order of the batch.
  virtual Task<Batch<Result<Written>>> apply(Context context, Batch<Mutation> mutations) = 0;
  virtual Task<Result<KeyPage>> scan(Context context, std::string prefix, std::string after, std::size_t max_rows,
                                     std::size_t max_bytes) = 0;
  virtual Task<void> close(Context context) = 0;
};

}  // namespace prism
