// One put: as a single request, or in parts.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backends/s3/object_store.h"
#include "runtime/scope.h"

namespace prism::s3 {

class Upload {
 public:
  Upload(ObjectStore& store, std::string key, Payload payload, PutOptions options);
  Task<Result<ObjectInfo>> run(Context context);

 private:
  // What is held in memory to be sent: the whole object, or a part of it.
  struct Chunk {
    std::vector<Bytes> pieces;
    std::size_t size = 0;
    std::uint32_t crc = 0;
    bool last = false;
    ByteBudget::Lease lease;
  };

  void count(std::string_view bytes, std::uint32_t* crc);
  Error size_mismatch(bool ended) const;
  Task<Result<void>> fill(Context context, Chunk* chunk, std::size_t size);
  Task<Result<ObjectInfo>> put_whole(Context context, Chunk chunk);
  Task<Result<ObjectInfo>> put_parts(Context context, std::optional<Chunk> first);  // none: streamed
  Task<Result<void>> send_all(Context context, Chunk first);
  // Of an announced size, in parts too large to be held: each goes out as the payload comes, one after the other. A
  // part that breaks off cannot be sent again, and ends the put.
  Task<Result<void>> stream_all(Context context);
  Task<Result<void>> stream_part(Context context, std::size_t number, std::uint64_t size);
  bool streamed() const noexcept;
  Task<Result<void>> begin(Context context);
  Task<void> send_part(Context context, std::size_t number, Chunk chunk);
  Task<Result<ObjectInfo>> complete(Context context);
  Task<void> abort();
  // The part's size: larger ones where 10000 of the usual ones are not enough.
  std::size_t part_size(std::size_t number) const noexcept;
  HeaderList conditions() const;
  // A condition that does not hold may be broken by this very put, whose answer was lost.
  Task<Result<ObjectInfo>> refused(Context context, Error error);
  ObjectInfo info(const HttpHead& head, std::string etag) const;

  ObjectStore& store_;
  Client& client_;
  const std::string key_;
  Payload payload_;
  const PutOptions options_;
  const std::string name_;  // of this put
  const std::optional<std::uint64_t> announced_;
  HeaderList headers_;
  std::uint64_t total_ = 0;
  std::uint32_t crc_ = 0;

  // Of a put in parts; the loop's thread only.
  std::string id_;
  bool checksums_ = true;
  std::vector<Part> parts_;
  std::size_t sending_ = 0;
  std::optional<Error> failed_;
  Notifier sent_;
  std::stop_source stop_;
};

}  // namespace prism::s3
