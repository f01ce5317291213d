#include "backends/filesystem/bucket.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "backends/filesystem/errors.h"
#include "backends/filesystem/footer.h"
#include "base/crc32c.h"
#include "base/ids.h"

namespace prism::filesystem {
namespace {

constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
constexpr int kAttempts =
    1000;  // against folders that are pruned at the same time: each lost race is somebody else's progress
constexpr std::uint64_t kWriteBack = 8UL << 20;
constexpr unsigned kLocks = 64;
constexpr std::size_t kUuid = 36;

std::string joined(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + '/' + name;
}

std::string folder_above(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

}  // namespace

Result<std::unique_ptr<Bucket>> Bucket::open(const std::string& root, const std::string& name) {
  PRISM_CHECK(check_bucket(name));
  const std::string path = std::filesystem::absolute(root).lexically_normal().string();
  auto bucket = std::unique_ptr<Bucket>(new Bucket());
  Fd top;
  const auto failed = [&](int e) {
    Error error = error_of(e, "open the storage folder", path);
    if (e == ENOENT) error.reason = "STORAGE_UNAVAILABLE";
    return fail(std::move(error));
  };
  if (const int e = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, top)) {
    if (e != ENOENT) return failed(e);
    std::error_code made;
    std::filesystem::create_directories(path, made);
    if (made) return failed(made.value());
    if (const int e2 = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, top)) return failed(e2);
    // Which of the folders above are new is not known; syncing all of them is done once in a storage's life.
    for (std::filesystem::path above = path; above.has_relative_path();) {
      above = above.parent_path();
      Fd fd;
      if (open_at(AT_FDCWD, above.string(), O_RDONLY | O_DIRECTORY, fd) == 0) sync_directory(fd.get());
    }
  }
  if (const int e = bucket->make_folder(top.get(), name + "/objects", true, bucket->objects_)) return failed(e);
  if (const int e = bucket->make_folder(top.get(), name + "/uploads", false, bucket->uploads_)) return failed(e);
  if (const int e = bucket->make_folder(top.get(), name + "/locks", false, bucket->locks_)) return failed(e);
  return bucket;
}

int Bucket::make_folder(int top, const std::string& folder, bool durable, Fd& out) {
  if (folder.empty()) return open_at(top, ".", kFolder, out);
  Fd above;
  for (std::size_t from = 0; from < folder.size();) {
    const std::size_t to = std::min(folder.find('/', from), folder.size());
    const std::string name = folder.substr(from, to - from);
    const int parent = above ? above.get() : top;
    Fd next;
    int e = open_at(parent, name, kFolder, next);
    if (e == ENOENT) {
      if (::mkdirat(parent, name.c_str(), 0750) != 0 && errno != EEXIST) return errno;
      e = open_at(parent, name, kFolder, next);
    }
    if (e != 0) return e;
    if (durable) {
      struct statx status{};
      if (::statx(next.get(), "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &status) != 0) return errno;
      const bool known_birth = (status.stx_mask & STATX_BTIME) != 0;
      const Identity identity{std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor, status.stx_ino,
                              status.stx_btime.tv_sec, status.stx_btime.tv_nsec};
      bool known = false;
      if (known_birth) {
        const std::lock_guard lock(mutex_);
        known = durable_.contains(identity);
      }
      if (!known) {
        if (const int e2 = sync_directory(parent)) return e2;
        if (known_birth) {
          const std::lock_guard lock(mutex_);
          if (durable_.size() >= 4096) durable_.clear();  // merely synced again
          durable_.insert(identity);
        }
      }
    }
    above = std::move(next);
    from = to + 1;
  }
  out = std::move(above);
  return 0;
}

void Bucket::prune(int top, std::string folder) noexcept {
  while (!folder.empty() && ::unlinkat(top, folder.c_str(), AT_REMOVEDIR) == 0) {
    folder = folder_above(folder);
  }
}

int Bucket::lock_key(const std::string& key, bool exclusive, Fd& out) const {
  char name[8];
  std::snprintf(name, sizeof name, "%02x", crc32c(0, key) % kLocks);
  if (const int e = open_at(locks_.get(), name, O_RDWR | O_CREAT, out, 0640)) return e;
  while (::flock(out.get(), exclusive ? LOCK_EX : LOCK_SH) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

Result<std::pair<Fd, ObjectInfo>> Bucket::find(const std::string& key) const {
  const ObjectPath path = object_path(key);
  Fd fd;
  if (const int e = open_at(objects_.get(), joined(path.folder, path.file()), O_RDONLY | O_NOFOLLOW, fd)) {
    return fail(e == ENOENT || e == ENOTDIR ? object_not_found(key) : error_of(e, "open the object", key));
  }
  PRISM_TRY(auto info, read_footer(fd.get(), key));
  return std::pair(std::move(fd), std::move(info));
}

std::vector<Result<void>> Bucket::remove(const std::vector<std::string>& keys, const Context& context) {
  std::vector<Result<void>> results(keys.size());
  std::map<std::string, std::vector<std::size_t>> removed;  // by folder: which of the keys
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (context.stopped()) {
      results[i] = fail(context.over(false));
      continue;
    }
    if (auto good = check_key(keys[i]); !good) {
      results[i] = std::move(good);
      continue;
    }
    const ObjectPath path = object_path(keys[i]);
    Fd lock;
    int e = lock_key(keys[i], false, lock);
    if (e == 0 && ::unlinkat(objects_.get(), joined(path.folder, path.file()).c_str(), 0) != 0) e = errno;
    if (e == 0) {
      removed[path.folder].push_back(i);
    } else if (e != ENOENT && e != ENOTDIR) {
      results[i] = fail(error_of(e, "remove the object", keys[i]));
    }
  }
  for (const auto& [folder, which] : removed) {
    if (const int e = sync_nearest(folder)) {
      Error error = error_of(e, "make durable the removal of", keys[which.front()]);
      error.retry = Retry::unknown_outcome;
      for (const std::size_t i : which) results[i] = fail(error);
    }
    prune(objects_.get(), folder);
  }
  return results;
}

// Somebody else may have pruned the folder already; then the change to be made durable is the one of the folder above.
int Bucket::sync_nearest(std::string folder) const {
  Fd fd;
  int e = open_at(objects_.get(), folder.empty() ? "." : folder, kFolder, fd);
  while (e == ENOENT && !folder.empty()) {
    folder = folder_above(folder);
    e = open_at(objects_.get(), folder.empty() ? "." : folder, kFolder, fd);
  }
  return e != 0 ? e : sync_directory(fd.get());
}

// Goes through a tree of folders in the order of the keys.
struct Bucket::Walk {
  int top;
  bool uploads;  // names of files are "<stem>.<uuid>.o"
  const std::string& prefix;
  const std::string& after;
  std::size_t room;  // this many entries are still wanted
  const Context& context;
  // A file: its path below the top and its key (uploads: without ".<uuid>"); takes room if it is true.
  std::function<bool(const std::string& path, const std::string& key, const std::string& uuid)> visit;
  Error error{};
  bool failed = false;

  struct Entry {
    std::string order;  // what the keys have here
    std::string name;
    std::string uuid;
    Name::Kind kind;
    friend bool operator<(const Entry& a, const Entry& b) {
      return std::tie(a.order, a.uuid) < std::tie(b.order, b.uuid);
    }
  };

  std::optional<Entry> entry_of(const std::string& base, std::string_view file) const {
    Entry entry;
    entry.name = file;
    std::string object;
    if (uploads && file.ends_with(".o") && file.size() > kUuid + 3 && file[file.size() - kUuid - 3] == '.') {
      entry.uuid = file.substr(file.size() - kUuid - 2, kUuid);
      object = std::string(file.substr(0, file.size() - kUuid - 3)) + ".o";
      file = object;
    } else if (uploads && file.ends_with(".o")) {
      return std::nullopt;
    }
    auto name = decode_name(file);
    if (!name) return std::nullopt;
    entry.kind = name->kind;
    entry.order = std::move(name->text);
    const std::string full = base + entry.order;
    if (entry.kind == Name::Kind::object) {
      if (full <= after || !full.starts_with(prefix)) return std::nullopt;
    } else {
      if (!full.starts_with(prefix) && !prefix.starts_with(full)) return std::nullopt;
      if (full < after && !after.starts_with(full)) return std::nullopt;
    }
    return entry;
  }

  bool stop() {
    if (!failed && context.stopped()) {
      failed = true;
      error = context.over(false);
    }
    return failed || room == 0;
  }

  // A folder may have any number of entries: as many as are wanted are kept, and the rest is read again if that was too
  // few.
  void folder(const std::string& path, const std::string& base) {
    std::optional<Entry> last;
    while (!stop()) {
      Fd fd;
      if (const int e = open_at(top, path.empty() ? "." : path, kFolder, fd)) {
        // Pruned meanwhile, or a foreign file.
        if (e != ENOENT && e != ENOTDIR) fail_with(e, path);
        return;
      }
      const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd.get()), ::closedir);
      if (!dir) return fail_with(errno, path);
      fd.release();  // closedir() closes it
      const std::size_t keep = std::max<std::size_t>(room, 64);
      std::vector<Entry> kept;  // a heap, the greatest first
      bool more = false;
      std::size_t seen = 0;
      while (true) {
        errno = 0;
        const dirent* const found = ::readdir(dir.get());
        if (found == nullptr) {
          if (errno != 0) return fail_with(errno, path);
          break;
        }
        if (++seen % 1024 == 0 && stop()) return;
        const std::string_view name = found->d_name;
        if (name == "." || name == "..") continue;
        auto entry = entry_of(base, name);
        if (!entry || (last && !(*last < *entry))) continue;
        if (kept.size() == keep) {
          more = true;
          if (!(*entry < kept.front())) continue;
          std::ranges::pop_heap(kept, std::less<>());
          kept.pop_back();
        }
        kept.push_back(std::move(*entry));
        std::ranges::push_heap(kept, std::less<>());
      }
      std::ranges::sort_heap(kept, std::less<>());
      for (const Entry& entry : kept) {
        if (stop()) return;
        const std::string below = joined(path, entry.name);
        if (entry.kind != Name::Kind::object) {
          folder(below, base + entry.order);
        } else if (visit(below, base + entry.order, entry.uuid)) {
          --room;
        }
      }
      if (!more) return;
      last = std::move(kept.back());
    }
  }

  void fail_with(int e, const std::string& path) {
    failed = true;
    error = error_of(e, "read the folder", path.empty() ? "." : path);
  }
};

Result<std::vector<ObjectInfo>> Bucket::list(const std::string& prefix, const std::string& after, std::size_t max,
                                             const Context& context) const {
  std::vector<ObjectInfo> found;
  Walk walk{.top = objects_.get(),
            .uploads = false,
            .prefix = prefix,
            .after = after,
            .room = max,
            .context = context,
            .visit = {}};
  walk.visit = [&](const std::string& path, const std::string& key, const std::string& /*uuid*/) {
    Fd fd;
    if (const int e = open_at(objects_.get(), path, O_RDONLY | O_NOFOLLOW, fd)) {
      if (e == ENOENT) return false;  // removed meanwhile
      walk.failed = true;
      walk.error = error_of(e, "open the object", key);
      return false;
    }
    auto info = read_footer(fd.get(), key);
    if (!info) {
      if (info.error().reason != "OBJECT_DAMAGED") {
        walk.failed = true;
        walk.error = std::move(info).error();
        return false;
      }
      // It is shown all the same, without an etag, so that it can be found and removed.
      struct stat status{};
      if (::fstat(fd.get(), &status) != 0) return false;
      info = ObjectInfo();
      info->key = key;
      info->size = static_cast<std::uint64_t>(status.st_size);
      info->modified = WallTime(std::chrono::seconds(status.st_mtim.tv_sec));
    }
    found.push_back(std::move(*info));
    return true;
  };
  walk.folder("", "");
  if (walk.failed) return fail(std::move(walk.error));
  return found;
}

Result<std::size_t> Bucket::abort_uploads(const std::string& prefix, WallTime older_than, const Context& context) {
  std::size_t removed = 0;
  std::set<std::string> folders;
  const std::string from_the_start;
  Walk walk{.top = uploads_.get(),
            .uploads = true,
            .prefix = prefix,
            .after = from_the_start,
            .room = 1024,  // files are looked at in runs of so many; none takes room
            .context = context,
            .visit = {}};
  walk.visit = [&](const std::string& path, const std::string& key, const std::string& uuid) {
    const auto begun = uuid7_time(uuid);
    if (!begun || *begun >= older_than) return false;
    Fd fd;
    if (const int e = open_at(uploads_.get(), path, O_RDONLY | O_NOFOLLOW, fd)) {
      if (e != ENOENT) {
        walk.failed = true;
        walk.error = error_of(e, "open the unfinished upload of", key);
      }
      return false;
    }
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;  // its put is under way
    if (::unlinkat(uploads_.get(), path.c_str(), 0) != 0) return false;
    ++removed;
    folders.insert(folder_above(path));
    return false;
  };
  walk.folder("", "");
  for (const std::string& folder : folders) prune(uploads_.get(), folder);
  if (walk.failed) return fail(std::move(walk.error));
  return removed;
}

Upload::Upload(Bucket& bucket, std::string key, PutOptions options)
    : bucket_(bucket), options_(std::move(options)), path_(object_path(key)) {
  info_.key = std::move(key);
  info_.content_type = options_.content_type;
  info_.metadata = options_.metadata;
  info_.etag = to_hex(random_id());
}

Error Upload::error(int number) const { return error_of(number, "store the object", info_.key); }

Result<void> Upload::check_conditions(int folder, const std::string& file) const {
  if (!options_.if_absent && options_.if_match.empty()) return {};
  Fd fd;
  const int e = open_at(folder, file, O_RDONLY | O_NOFOLLOW, fd);
  if (e != 0 && e != ENOENT) return fail(error(e));
  if (options_.if_absent && e == 0) {
    return fail(Code::already_exists, "OBJECT_EXISTS", "there is an object '" + info_.key + "' already");
  }
  if (!options_.if_match.empty()) {
    std::string found;
    if (e == 0) {
      PRISM_TRY(const auto info, read_footer(fd.get(), info_.key));
      found = info.etag;
    }
    if (found != options_.if_match) {
      return fail(
          Code::failed_precondition, "PRECONDITION_FAILED",
          "the object '" + info_.key + "' " +
              (e != 0 ? std::string("does not exist") : "has the etag " + found + ", not " + options_.if_match));
    }
  }
  return {};
}

Result<void> Upload::create() {
  // Told now if it can be told, rather than after the whole content was sent.
  PRISM_CHECK(check_conditions(bucket_.objects_.get(), joined(path_.folder, path_.file())));
  PRISM_CHECK(encode_footer(info_));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Fd folder;
    int e = bucket_.make_folder(bucket_.uploads_.get(), path_.folder, false, folder);
    const std::string name = path_.stem + '.' + uuid7() + ".o";
    if (e == 0) e = open_at(folder.get(), name, O_RDWR | O_CREAT | O_EXCL, fd_, 0640);
    if (e == ENOENT) continue;
    if (e != 0) return fail(error(e));
    name_ = joined(path_.folder, name);
    // Where locks are not supported an unfinished upload is told by its age alone.
    while (::flock(fd_.get(), LOCK_EX) != 0 && errno == EINTR) {
    }
    struct stat status{};
    if (::fstat(fd_.get(), &status) != 0) return fail(error(errno));
    if (status.st_nlink != 0) return {};
  }
  return fail(error(EAGAIN));
}

Result<void> Upload::write(std::span<const Bytes> pieces) {
  if (!fd_) PRISM_CHECK(create());
  std::uint64_t end = info_.size;
  for (const Bytes& piece : pieces) {
    info_.crc32c = crc32c(info_.crc32c, piece.view());
    end += piece.size();
  }
  if (const int e = write_at(fd_.get(), pieces, info_.size)) return fail(error(e));
  info_.size = end;
  if (end - flushed_ >= kWriteBack) {
    // Only a hint, so that the sync at the end finds little to do.
    ::sync_file_range(fd_.get(), static_cast<off_t>(flushed_), static_cast<off_t>(end - flushed_),
                      SYNC_FILE_RANGE_WRITE);
    flushed_ = end;
  }
  return {};
}

Result<ObjectInfo> Upload::publish() {
  if (!fd_) PRISM_CHECK(create());
  info_.modified = wall_now();
  PRISM_TRY(const std::string footer, encode_footer(info_));
  if (const int e = write_at(fd_.get(), footer, info_.size)) return fail(error(e));
  if (const int e = sync_data(fd_.get())) return fail(error(e));
  const std::string file = path_.file();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Fd folder;
    int e = bucket_.make_folder(bucket_.objects_.get(), path_.folder, true, folder);
    if (e == ENOENT) continue;
    if (e != 0) return fail(error(e));
    {
      Fd lock;
      const bool look_first = !options_.if_match.empty();
      if ((e = bucket_.lock_key(info_.key, look_first, lock)) != 0) return fail(error(e));
      if (look_first) PRISM_CHECK(check_conditions(folder.get(), file));
      const unsigned flags = options_.if_absent ? RENAME_NOREPLACE : 0;
      if (::renameat2(bucket_.uploads_.get(), name_.c_str(), folder.get(), file.c_str(), flags) != 0) e = errno;
      if (e == EINVAL && options_.if_absent) {
        // A file system without RENAME_NOREPLACE: a link does not replace either.
        e = ::linkat(bucket_.uploads_.get(), name_.c_str(), folder.get(), file.c_str(), 0) == 0 ? 0 : errno;
        if (e == 0) ::unlinkat(bucket_.uploads_.get(), name_.c_str(), 0);
      }
    }
    if (e == EEXIST)
      return fail(Code::already_exists, "OBJECT_EXISTS", "there is an object '" + info_.key + "' already");
    if (e == ENOENT) {
      struct stat status{};
      if (::fstat(fd_.get(), &status) != 0) return fail(error(errno));
      if (status.st_nlink == 0) {
        return fail(Code::aborted, "UPLOAD_ABORTED",
                    "the upload of '" + info_.key + "' was removed while it was under way");
      }
      continue;  // the folder was pruned
    }
    if (e != 0) return fail(error(e));
    name_.clear();
    fd_.reset();
    if ((e = sync_directory(folder.get())) != 0) {
      Error failed = error(e);
      failed.retry = Retry::unknown_outcome;  // it is visible, but may not survive a loss of power
      return fail(std::move(failed));
    }
    return info_;
  }
  return fail(error(EAGAIN));
}

void Upload::discard() noexcept {
  if (!name_.empty()) ::unlinkat(bucket_.uploads_.get(), name_.c_str(), 0);
  name_.clear();
  fd_.reset();
}

}  // namespace prism::filesystem
