// An object store in memory, so that the claim check is tested without any backend.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "capabilities/object_store.h"

namespace prism::claim_check {

// Puts can be told to fail. Not thread-safe.
class MemoryObjects : public ObjectStore {
 public:
  std::map<std::string, std::pair<std::string, ObjectInfo>> objects;
  bool fail_puts = false;
  std::vector<std::string> log;

  const ObjectFeatures& features() const noexcept override { return features_; }
  Task<Result<ObjectInfo>> put(Context context, std::string key, Payload payload, PutOptions options) override {
    log.emplace_back("put");
    std::string all;
    while (true) {
      PRISM_CO_TRY(auto piece, co_await payload.next(context, 1 << 16));
      if (piece.empty()) break;
      all += piece.view();
    }
    if (fail_puts) co_return fail(Code::unavailable, "STORE_DOWN", "down", {}, Retry::safe);
    ObjectInfo info{.key = key,
                    .etag = "e",
                    .size = all.size(),
                    .crc32c = crc32c(0, all),
                    .modified = wall_now(),
                    .content_type = options.content_type,
                    .metadata = {}};
    objects[key] = {std::move(all), info};
    co_return info;
  }
  Task<Result<std::pair<ObjectInfo, Payload>>> get(Context /*c*/, std::string key, std::uint64_t from,
                                                   std::optional<std::uint64_t> /*n*/) override {
    const auto it = objects.find(key);
    if (it == objects.end()) co_return fail(Code::not_found, "OBJECT_NOT_FOUND", key);
    co_return std::pair(it->second.second, Payload(Bytes(it->second.first.substr(from))));
  }
  Task<Result<ObjectInfo>> head(Context /*c*/, std::string key) override {
    const auto it = objects.find(key);
    if (it == objects.end()) co_return fail(Code::not_found, "OBJECT_NOT_FOUND", key);
    co_return it->second.second;
  }
  Task<Batch<Result<void>>> remove(Context /*c*/, Batch<std::string> keys) override {
    for (const auto& key : keys) objects.erase(key);
    co_return Batch<Result<void>>(keys.size());
  }
  Task<Result<Batch<ObjectInfo>>> list(Context /*c*/, std::string prefix, std::string after, std::size_t max) override {
    Batch<ObjectInfo> out;
    for (auto it = objects.upper_bound(std::max(after, prefix));
         it != objects.end() && it->first.starts_with(prefix) && out.size() < max; ++it) {
      out.push_back(it->second.second);
    }
    co_return out;
  }
  Task<Result<std::size_t>> abort_uploads(Context /*c*/, std::string /*prefix*/, WallTime /*t*/) override {
    co_return 0;
  }
  Task<void> close(Context /*c*/) override { co_return; }

 private:
  ObjectFeatures features_;
};

}  // namespace prism::claim_check
