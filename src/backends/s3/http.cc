#include "backends/s3/http.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>

#include "backends/s3/libcurl.h"
#include "runtime/one_shot.h"

namespace prism::s3 {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kPiece = 128UL << 10;  // what curl reads from a socket at once

constexpr std::uint64_t kAsksFirst = 1UL << 20;  // bytes of a body

bool of_tls(CURLcode code) {
  return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR || code == CURLE_SSL_CERTPROBLEM ||
         code == CURLE_SSL_CIPHER || code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_ISSUER_ERROR ||
         code == CURLE_USE_SSL_FAILED || code == CURLE_SSL_INVALIDCERTSTATUS || code == CURLE_SSL_CRL_BADFILE;
}

Error error_of(CURLcode code, const std::string& says, bool sent, const client::Peer& peer) {
  const Retry retry = sent ? Retry::unknown_outcome : Retry::safe;
  const std::string why = says.empty() ? curl().curl_easy_strerror(code) : says;
  // A server that goes away in the middle of the handshake is no matter of certificates.
  const bool cut = why.find("SSL_ERROR_SYSCALL") != std::string::npos ||
                   why.find("reset by peer") != std::string::npos || why.find("unexpected eof") != std::string::npos;
  if (of_tls(code) && !(cut && code == CURLE_SSL_CONNECT_ERROR)) return client::tls_failed(peer, why);
  switch (code) {
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
      return client::protocol_error(peer, why, retry);
    case CURLE_OPERATION_TIMEDOUT:
      return sent ? client::timed_out(peer, why, retry) : client::unavailable(peer, why, retry);
    default:
      return client::unavailable(peer, why, retry);
  }
}

}  // namespace

const std::string* HttpHead::find(std::string_view name) const {
  for (const auto& [header, value] : headers) {
    if (header == name) return &value;
  }
  return nullptr;
}

// A socket of curl's that the loop watches. Loop thread only.
struct Watch {
  Watch(asio::io_context& io, curl_socket_t s) : descriptor(io, s), socket(s) {}
  asio::posix::stream_descriptor descriptor;
  const curl_socket_t socket;
  int want = CURL_POLL_NONE;
  bool reading = false, writing = false;  // waits are under way
  bool gone = false;
};

// All on the loop's thread but what says otherwise.
class Engine : public std::enable_shared_from_this<Engine> {
 public:
  Engine(EventLoop& loop, HttpOptions options) : loop_(loop), options_(std::move(options)), timer_(loop.io()) {}

  EventLoop& loop() const noexcept { return loop_; }
  const HttpOptions& options() const noexcept { return options_; }

  // Waits for a connection's place, in the order of arrival.
  Task<Result<void>> enter(Context context);
  Result<void> start(std::shared_ptr<Transfer> transfer);
  void leave(Transfer& transfer);  // of one that was started: it has ended, or is given up
  void shut();
  bool shut_down() const noexcept { return shut_; }
  ConnectionUse use() const noexcept {  // any thread
    ConnectionUse out;
    out.in_use = in_use_.load(std::memory_order_relaxed);
    const std::size_t open = sockets_.load(std::memory_order_relaxed);
    out.idle = open > out.in_use ? open - out.in_use : 0;
    out.waiting = waiting_.load(std::memory_order_relaxed);
    return out;
  }

 private:
  struct Waiter {
    explicit Waiter(EventLoop& loop) : called(loop) {}
    Notifier called;
    bool admitted = false;
  };

  static int on_socket(CURL* easy, curl_socket_t socket, int what, void* self, void* watch);
  static int on_timer(CURLM* multi, long milliseconds, void* self);
  static curl_socket_t on_open(void* self, curlsocktype purpose, curl_sockaddr* address);
  static int on_close(void* self, curl_socket_t socket);
  void arm(const std::shared_ptr<Watch>& watch);
  void act(curl_socket_t socket, int events);
  void give_place_back();

  EventLoop& loop_;
  const HttpOptions options_;
  CURLM* multi_ = nullptr;
  asio::steady_timer timer_;
  std::map<curl_socket_t, std::shared_ptr<Watch>> watches_;
  std::map<CURL*, std::shared_ptr<Transfer>> transfers_;
  std::deque<std::shared_ptr<Waiter>> queue_;
  bool shut_ = false;
  std::atomic<std::size_t> sockets_{0}, in_use_{0}, waiting_{0};
};

// On the loop's thread only, but for what says otherwise.
class Transfer : public std::enable_shared_from_this<Transfer> {
 public:
  Transfer(std::shared_ptr<Engine> engine, HttpRequest request)
      : engine_(std::move(engine)), request_(std::move(request)), changed_(engine_->loop()) {}
  ~Transfer() {
    if (easy_ != nullptr) curl().curl_easy_cleanup(easy_);
    curl().curl_slist_free_all(headers_);
    curl().curl_slist_free_all(connect_to_);
  }

  EventLoop& loop() const noexcept { return engine_->loop(); }  // any thread
  CURL* easy() const noexcept { return easy_; }
  Result<void> prepare();
  void finish(CURLcode code);
  void give_up();

  Task<Result<HttpHead>> head(Context context);
  Task<Result<Bytes>> read(Context context, std::size_t max);
  Task<bool> feed(Context context, Bytes piece);
  void set_window(std::size_t bytes) noexcept { window_.store(std::max(bytes, kPiece), std::memory_order_relaxed); }

 private:
  static std::size_t on_header(char* data, std::size_t one, std::size_t n, void* self);
  static std::size_t on_body(char* data, std::size_t one, std::size_t n, void* self);
  static std::size_t on_send(char* buffer, std::size_t one, std::size_t n, void* self);
  static int on_seek(void* self, curl_off_t offset, int origin);
  // Sleeps until something has happened; an error when the context is over or nothing has moved for too long.
  Task<Result<void>> wait(Context context, bool watch_progress);
  void tell() {
    if (waiting_) changed_.notify();
  }
  void unpause();
  Error failure() const;
  bool sent() const;

  struct Block {
    std::unique_ptr<char[]> bytes;
    std::size_t size = 0, capacity = 0;
  };

  const std::shared_ptr<Engine> engine_;
  HttpRequest request_;
  CURL* easy_ = nullptr;
  curl_slist *headers_ = nullptr, *connect_to_ = nullptr;  // curl refers to them
  char says_[CURL_ERROR_SIZE] = {};
  Notifier changed_;
  bool waiting_ = false;
  Clock::time_point moved_ = Clock::now();

  HttpHead head_;
  bool has_head_ = false, done_ = false;
  std::optional<Error> error_;  // of an end that was none
  std::deque<Block> blocks_;
  Bytes current_;  // taken from the blocks, not yet given out
  std::size_t buffered_ = 0;
  std::atomic<std::size_t> window_{kPiece};
  std::optional<std::uint64_t> left_;  // of the body, by its content-length
  bool receiving_paused_ = false, sending_paused_ = false;

  std::size_t piece_ = 0, offset_ = 0;  // of the body, when it is not fed
  std::deque<Bytes> fed_;
  std::size_t unsent_ = 0;
};

// ---- Engine

Task<Result<void>> Engine::enter(Context context) {
  if (shut_) co_return fail(client::unavailable(options_.peer, "the connection is being closed"));
  if (in_use_ < options_.pool.connections && queue_.empty()) {
    in_use_.fetch_add(1, std::memory_order_relaxed);
    co_return Result<void>();
  }
  if (queue_.size() >= options_.pool.queue)
    co_return fail(client::overloaded(options_.peer, "too many operations wait for one", options_.pool.wait));
  const auto waiter = std::make_shared<Waiter>(loop_);
  queue_.push_back(waiter);
  waiting_.store(queue_.size(), std::memory_order_relaxed);
  const auto until = Clock::now() + options_.pool.wait;
  co_await waiter->called.wait(context, 0, std::min(until, context.deadline()) - Clock::now());
  co_await resume_on(loop_);
  if (waiter->admitted) co_return Result<void>();
  std::erase(queue_, waiter);
  waiting_.store(queue_.size(), std::memory_order_relaxed);
  if (context.stopped()) co_return fail(context.over(false));
  if (shut_) co_return fail(client::unavailable(options_.peer, "the connection is being closed"));
  co_return fail(client::overloaded(options_.peer, "all were in use for too long", options_.pool.wait));
}

void Engine::give_place_back() {
  if (!queue_.empty() && !shut_) {
    queue_.front()->admitted = true;
    queue_.front()->called.notify();
    queue_.pop_front();
    waiting_.store(queue_.size(), std::memory_order_relaxed);
    return;
  }
  in_use_.fetch_sub(1, std::memory_order_relaxed);
}

Result<void> Engine::start(std::shared_ptr<Transfer> transfer) {
  const auto refuse = [&](std::string_view why) {
    give_place_back();
    return fail(client::unavailable(options_.peer, why));
  };
  if (shut_) return refuse("the connection is being closed");
  if (multi_ == nullptr) {
    multi_ = curl().curl_multi_init();
    if (multi_ == nullptr) return refuse("curl cannot be set up");
    curl().curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &Engine::on_socket);
    curl().curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl().curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &Engine::on_timer);
    curl().curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
    curl().curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(options_.pool.connections));
  }
  if (auto prepared = transfer->prepare(); !prepared) {
    give_place_back();
    return prepared;
  }
  curl().curl_easy_setopt(transfer->easy(), CURLOPT_OPENSOCKETFUNCTION, &Engine::on_open);
  curl().curl_easy_setopt(transfer->easy(), CURLOPT_OPENSOCKETDATA, this);
  curl().curl_easy_setopt(transfer->easy(), CURLOPT_CLOSESOCKETFUNCTION, &Engine::on_close);
  curl().curl_easy_setopt(transfer->easy(), CURLOPT_CLOSESOCKETDATA, this);
  if (const CURLMcode code = curl().curl_multi_add_handle(multi_, transfer->easy()); code != CURLM_OK)
    return refuse(curl().curl_multi_strerror(code));
  CURL* const easy = transfer->easy();
  transfers_.emplace(easy, std::move(transfer));
  return {};
}

void Engine::leave(Transfer& transfer) {
  const auto it = transfers_.find(transfer.easy());
  if (it == transfers_.end()) return;
  const auto kept = it->second;
  if (multi_ != nullptr) curl().curl_multi_remove_handle(multi_, transfer.easy());
  transfers_.erase(it);
  give_place_back();
}

void Engine::shut() {
  if (shut_) return;
  shut_ = true;
  while (!transfers_.empty()) {
    const auto transfer = transfers_.begin()->second;
    transfer->finish(CURLE_ABORTED_BY_CALLBACK);
  }
  for (const auto& waiter : queue_) waiter->called.notify();
  if (multi_ != nullptr) curl().curl_multi_cleanup(multi_);
  multi_ = nullptr;
  timer_.cancel();
  for (auto& [socket, watch] : watches_) {
    watch->gone = true;
    watch->descriptor.release();
  }
  watches_.clear();
}

curl_socket_t Engine::on_open(void* self, curlsocktype /*purpose*/, curl_sockaddr* address) {
  const int fd = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (fd >= 0) static_cast<Engine*>(self)->sockets_.fetch_add(1, std::memory_order_relaxed);
  return fd;
}

int Engine::on_close(void* self, curl_socket_t socket) {
  static_cast<Engine*>(self)->sockets_.fetch_sub(1, std::memory_order_relaxed);
  return ::close(socket);
}

int Engine::on_socket(CURL* /*easy*/, curl_socket_t socket, int what, void* self_pointer, void* /*watch*/) {
  auto& self = *static_cast<Engine*>(self_pointer);
  const auto it = self.watches_.find(socket);
  if (what == CURL_POLL_REMOVE) {
    if (it == self.watches_.end()) return 0;
    it->second->gone = true;
    it->second->descriptor.release();  // curl closes it, or keeps it for the next request
    self.watches_.erase(it);
    return 0;
  }
  std::shared_ptr<Watch> watch;
  if (it == self.watches_.end()) {
    watch = std::make_shared<Watch>(self.loop_.io(), socket);
    self.watches_.emplace(socket, watch);
  } else {
    watch = it->second;
  }
  watch->want = what;
  self.arm(watch);
  return 0;
}

void Engine::arm(const std::shared_ptr<Watch>& watch) {
  const auto wait = [&](asio::posix::descriptor_base::wait_type type, bool Watch::* busy, int event) {
    (*watch).*busy = true;
    watch->descriptor.async_wait(type, [self = shared_from_this(), watch, busy, event](const asio::error_code& error) {
      (*watch).*busy = false;
      if (watch->gone || error == asio::error::operation_aborted) return;
      if ((watch->want & event) != 0) self->act(watch->socket, error ? CURL_CSELECT_ERR : event);
      if (!watch->gone && !error) self->arm(watch);
    });
  };
  static_assert(CURL_POLL_IN == CURL_CSELECT_IN && CURL_POLL_OUT == CURL_CSELECT_OUT);
  if ((watch->want & CURL_POLL_IN) != 0 && !watch->reading)
    wait(asio::posix::descriptor_base::wait_read, &Watch::reading, CURL_CSELECT_IN);
  if ((watch->want & CURL_POLL_OUT) != 0 && !watch->writing)
    wait(asio::posix::descriptor_base::wait_write, &Watch::writing, CURL_CSELECT_OUT);
}

int Engine::on_timer(CURLM* /*multi*/, long milliseconds, void* self_pointer) {
  auto& self = *static_cast<Engine*>(self_pointer);
  if (milliseconds < 0) {
    self.timer_.cancel();
    return 0;
  }
  self.timer_.expires_after(std::chrono::milliseconds(milliseconds));
  self.timer_.async_wait([engine = self.shared_from_this()](const asio::error_code& error) {
    if (!error) engine->act(CURL_SOCKET_TIMEOUT, 0);
  });
  return 0;
}

void Engine::act(curl_socket_t socket, int events) {
  if (multi_ == nullptr) return;
  int running = 0;
  curl().curl_multi_socket_action(multi_, socket, events, &running);
  int left = 0;
  while (CURLMsg* const message = curl().curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    if (const auto it = transfers_.find(message->easy_handle); it != transfers_.end()) {
      const auto transfer = it->second;
      transfer->finish(code);
    }
  }
}

// ---- Transfer

Result<void> Transfer::prepare() {
  easy_ = curl().curl_easy_init();
  if (easy_ == nullptr) return fail(client::unavailable(engine_->options().peer, "curl cannot be set up"));
  const HttpOptions& options = engine_->options();
  const auto set = [this](auto option, auto value) { curl().curl_easy_setopt(easy_, option, value); };
  set(CURLOPT_URL, request_.url.c_str());
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_ERRORBUFFER, says_);
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_BUFFERSIZE, static_cast<long>(kPiece));
  set(CURLOPT_UPLOAD_BUFFERSIZE, static_cast<long>(kPiece));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.timeouts.connect.count()));
  set(CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(CURLOPT_HEADERDATA, this);
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  set(CURLOPT_WRITEDATA, this);
  if (!options.connect_to.empty()) {
    connect_to_ = curl().curl_slist_append(nullptr, options.connect_to.c_str());
    set(CURLOPT_CONNECT_TO, connect_to_);
  }
  if (options.tls) {
    const client::TlsOptions& tls = *options.tls;
    if (tls.ca_file) set(CURLOPT_CAINFO, tls.ca_file->c_str());
    if (tls.cert_file) set(CURLOPT_SSLCERT, tls.cert_file->c_str());
    if (tls.key_file) set(CURLOPT_SSLKEY, tls.key_file->c_str());
    if (!tls.verify) {
      set(CURLOPT_SSL_VERIFYPEER, 0L);
      set(CURLOPT_SSL_VERIFYHOST, 0L);
    }
  }
  std::uint64_t size = request_.fed.value_or(0);
  for (const Bytes& piece : request_.body) size += piece.size();
  if (request_.method == "PUT" || request_.method == "POST") {
    set(CURLOPT_UPLOAD, 1L);
    set(CURLOPT_READFUNCTION, &Transfer::on_send);
    set(CURLOPT_READDATA, this);
    if (!request_.fed) {
      set(CURLOPT_SEEKFUNCTION, &Transfer::on_seek);
      set(CURLOPT_SEEKDATA, this);
    }
    set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(size));
  } else if (request_.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  }
  if (request_.method != "HEAD") set(CURLOPT_CUSTOMREQUEST, request_.method.c_str());
  for (const auto& [name, value] : request_.headers) {
    std::string line = name;
    if (value.empty()) {
      line += ';';  // as curl has it
    } else {
      line.append(": ").append(value);
    }
    headers_ = curl().curl_slist_append(headers_, line.c_str());
  }
  // A server that refuses a large body says so before it is sent: it would close the connection upon the rest of it,
  // and its answer be lost.
  headers_ = curl().curl_slist_append(headers_, size >= kAsksFirst ? "expect: 100-continue" : "expect:");
  set(CURLOPT_EXPECT_100_TIMEOUT_MS, 500L);
  set(CURLOPT_HTTPHEADER, headers_);
  return {};
}

std::size_t Transfer::on_header(char* data, std::size_t /*one*/, std::size_t n, void* self_pointer) {
  auto& self = *static_cast<Transfer*>(self_pointer);
  std::string_view line(data, n);
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  self.moved_ = Clock::now();
  if (line.starts_with("HTTP/")) {
    self.head_ = HttpHead();
    long status = 0;
    curl().curl_easy_getinfo(self.easy_, CURLINFO_RESPONSE_CODE, &status);
    self.head_.status = static_cast<int>(status);
    return n;
  }
  if (line.empty()) {
    if (self.head_.status < 200) return n;  // "100 Continue": another head follows
    if (const std::string* length = self.head_.find("content-length"))
      self.left_ = std::strtoull(length->c_str(), nullptr, 10);
    self.has_head_ = true;
    self.tell();
    return n;
  }
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return n;
  std::string name(line.substr(0, colon));
  std::ranges::transform(name, name.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  std::string_view value = line.substr(colon + 1);
  while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
  while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
  self.head_.headers.emplace_back(std::move(name), value);
  return n;
}

std::size_t Transfer::on_body(char* data, std::size_t /*one*/, std::size_t n, void* self_pointer) {
  auto& self = *static_cast<Transfer*>(self_pointer);
  if (self.buffered_ >= self.window_.load(std::memory_order_relaxed)) {
    self.receiving_paused_ = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  self.moved_ = Clock::now();
  std::size_t taken = 0;
  while (taken < n) {
    if (self.blocks_.empty() || self.blocks_.back().size == self.blocks_.back().capacity) {
      const std::size_t expected =
          self.left_ ? static_cast<std::size_t>(std::min<std::uint64_t>(*self.left_, kPiece)) : kPiece;
      const std::size_t capacity = std::max(expected, std::min(n - taken, kPiece));
      self.blocks_.push_back({std::make_unique_for_overwrite<char[]>(capacity), 0, capacity});
    }
    Block& block = self.blocks_.back();
    const std::size_t part = std::min(n - taken, block.capacity - block.size);
    std::memcpy(block.bytes.get() + block.size, data + taken, part);
    block.size += part;
    taken += part;
    if (self.left_) *self.left_ -= std::min<std::uint64_t>(*self.left_, part);
  }
  self.buffered_ += n;
  self.tell();
  return n;
}

std::size_t Transfer::on_send(char* buffer, std::size_t one, std::size_t n, void* self_pointer) {
  auto& self = *static_cast<Transfer*>(self_pointer);
  const std::size_t room = one * n;
  std::size_t put = 0;
  self.moved_ = Clock::now();
  if (self.request_.fed) {
    while (put < room && !self.fed_.empty()) {
      Bytes& front = self.fed_.front();
      const std::size_t part = std::min(room - put, front.size());
      std::memcpy(buffer + put, front.data(), part);
      put += part;
      front = front.slice(part);
      if (front.empty()) self.fed_.pop_front();
    }
    self.unsent_ -= put;
    if (put == 0) {
      self.sending_paused_ = true;
      self.tell();
      return CURL_READFUNC_PAUSE;
    }
    self.tell();
    return put;
  }
  while (put < room && self.piece_ < self.request_.body.size()) {
    const Bytes& piece = self.request_.body[self.piece_];
    const std::size_t part = std::min(room - put, piece.size() - self.offset_);
    std::memcpy(buffer + put, piece.data() + self.offset_, part);
    put += part;
    self.offset_ += part;
    if (self.offset_ == piece.size()) {
      ++self.piece_;
      self.offset_ = 0;
    }
  }
  return put;
}

int Transfer::on_seek(void* self_pointer, curl_off_t offset, int origin) {
  auto& self = *static_cast<Transfer*>(self_pointer);
  if (offset != 0 || origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  self.piece_ = 0;
  self.offset_ = 0;
  return CURL_SEEKFUNC_OK;
}

bool Transfer::sent() const {
  long bytes = 0;
  if (easy_ != nullptr) curl().curl_easy_getinfo(easy_, CURLINFO_REQUEST_SIZE, &bytes);
  return bytes > 0;
}

void Transfer::finish(CURLcode code) {
  if (done_) return;
  if (code != CURLE_OK && !error_) error_ = error_of(code, says_, sent(), engine_->options().peer);
  done_ = true;
  engine_->leave(*this);
  tell();
}

void Transfer::give_up() {
  if (done_) return;
  done_ = true;
  if (!error_)
    error_ = client::unavailable(engine_->options().peer, "the request was given up",
                                 sent() ? Retry::unknown_outcome : Retry::safe);
  engine_->leave(*this);
}

Task<Result<void>> Transfer::wait(Context context, bool watch_progress) {
  const auto limit = engine_->options().timeouts.operation;
  const std::uint64_t seen = changed_.version();
  waiting_ = true;
  const Clock::duration at_most = watch_progress ? moved_ + limit - Clock::now() : Clock::duration(1h);
  const Clock::duration left = std::min<Clock::duration>(at_most, context.deadline() - Clock::now());
  co_await changed_.wait(context, seen, std::max<Clock::duration>(left, 0ms));
  co_await resume_on(loop());
  waiting_ = false;
  if (context.stopped() && !done_) {
    const bool was_sent = sent();
    give_up();
    co_return fail(context.over(was_sent));
  }
  if (watch_progress && !done_ && Clock::now() >= moved_ + limit) {
    Error late =
        client::timed_out(engine_->options().peer, "nothing has come for " + std::to_string(limit.count()) + " ms",
                          sent() ? Retry::unknown_outcome : Retry::safe);
    give_up();
    co_return fail(std::move(late));
  }
  co_return Result<void>();
}

Task<Result<HttpHead>> Transfer::head(Context context) {
  co_await resume_on(loop());
  moved_ = Clock::now();
  while (!has_head_ && !done_) PRISM_CO_CHECK(co_await wait(context, !sending_paused_));
  if (!has_head_) {
    if (error_) co_return fail(*error_);
    co_return fail(client::protocol_error(engine_->options().peer, "an empty answer", Retry::unknown_outcome));
  }
  co_return head_;
}

void Transfer::unpause() {
  if (done_ || easy_ == nullptr) return;
  curl().curl_easy_pause(easy_, (receiving_paused_ ? CURLPAUSE_RECV : 0) | (sending_paused_ ? CURLPAUSE_SEND : 0));
}

Task<Result<Bytes>> Transfer::read(Context context, std::size_t max) {
  co_await resume_on(loop());
  if (context.stopped()) {
    give_up();
    co_return fail(context.over(false));
  }
  if (current_.empty()) {
    moved_ = Clock::now();
    while (blocks_.empty()) {
      if (done_) {
        if (error_) co_return fail(*error_);
        co_return Bytes();
      }
      if (receiving_paused_) {
        receiving_paused_ = false;
        unpause();
        continue;
      }
      PRISM_CO_CHECK(co_await wait(context, true));
    }
    Block block = std::move(blocks_.front());
    blocks_.pop_front();
    const std::string_view view(block.bytes.get(), block.size);
    current_ = Bytes(std::shared_ptr<const void>(std::move(block.bytes)), view);
    buffered_ -= view.size();
    if (receiving_paused_ && buffered_ <= window_.load(std::memory_order_relaxed) / 2) {
      receiving_paused_ = false;
      unpause();
    }
  }
  Bytes out = current_.slice(0, max);
  current_ = out.size() == current_.size() ? Bytes() : current_.slice(out.size());
  co_return out;
}

Task<bool> Transfer::feed(Context context, Bytes piece) {
  co_await resume_on(loop());
  if (done_ || has_head_) co_return false;
  unsent_ += piece.size();
  fed_.push_back(std::move(piece));
  if (sending_paused_) {
    sending_paused_ = false;
    unpause();
  }
  moved_ = Clock::now();
  while (unsent_ > 2 * kPiece && !done_ && !has_head_) {
    if (const auto waited = co_await wait(context, true); !waited) {
      error_ = waited.error();
      co_return false;
    }
  }
  co_return !done_ && !has_head_;
}

// ---- Exchange, HttpClient

Exchange::~Exchange() {
  if (!transfer_) return;
  EventLoop& loop = transfer_->loop();
  asio::post(loop.io(), [transfer = std::move(transfer_)] { transfer->give_up(); });
}

Task<Result<HttpHead>> Exchange::head(Context context) { return transfer_->head(std::move(context)); }
Task<Result<Bytes>> Exchange::read(Context context, std::size_t max) {
  return transfer_->read(std::move(context), max);
}
Task<bool> Exchange::feed(Context context, Bytes piece) {
  return transfer_->feed(std::move(context), std::move(piece));
}
void Exchange::set_window(std::size_t bytes) noexcept { transfer_->set_window(bytes); }

HttpClient::HttpClient(EventLoop& loop, HttpOptions options)
    : loop_(loop), engine_(std::make_shared<Engine>(loop, std::move(options))) {}

HttpClient::~HttpClient() {
  asio::post(loop_.io(), [engine = engine_] { engine->shut(); });
}

Task<Result<std::unique_ptr<Exchange>>> HttpClient::begin(Context context, HttpRequest request) {
  co_await resume_on(loop_);
  if (context.stopped()) co_return fail(context.over(false));
  PRISM_CO_CHECK(co_await engine_->enter(context));
  auto transfer = std::make_shared<Transfer>(engine_, std::move(request));
  PRISM_CO_CHECK(engine_->start(transfer));
  co_return std::make_unique<Exchange>(std::move(transfer));
}

ConnectionUse HttpClient::use() const noexcept { return engine_->use(); }

Task<void> HttpClient::close() {
  co_await resume_on(loop_);
  engine_->shut();
}

}  // namespace prism::s3
