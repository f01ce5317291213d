#include "api/sessions.h"

#include <mutex>
#include <utility>

#include "base/ids.h"

namespace prism::api {

Sessions::Use::Use(std::shared_ptr<const Session> session) : session_(std::move(session)) {
  session_->uses.fetch_add(1, std::memory_order_relaxed);
}

Sessions::Use& Sessions::Use::operator=(Use&& other) noexcept {
  if (this != &other) {
    end();
    session_ = std::move(other.session_);
  }
  return *this;
}

void Sessions::Use::end() noexcept {
  if (session_ == nullptr) return;
  session_->last_used.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
  session_->uses.fetch_sub(1, std::memory_order_release);
  session_.reset();
}

bool Sessions::expired(const Session& session, Clock::time_point now) const noexcept {
  if (session.uses.load(std::memory_order_acquire) > 0) return false;
  const Clock::time_point last{Clock::duration(session.last_used.load(std::memory_order_relaxed))};
  return now - last >= options_.idle_timeout;
}

void Sessions::sweep(Clock::time_point now) {
  swept_ = now;
  std::erase_if(sessions_, [&](const auto& entry) { return expired(*entry.second, now); });
}

Result<Sessions::Use> Sessions::open(std::string namespace_name, std::string client_name, std::string client_version) {
  auto session = std::make_shared<Session>();
  session->id = to_hex(random_id());
  session->namespace_name = std::move(namespace_name);
  session->client_name = std::move(client_name);
  session->client_version = std::move(client_version);
  session->opened = wall_now();
  const auto now = Clock::now();
  session->last_used = now.time_since_epoch().count();

  const std::unique_lock lock(mutex_);
  // Each session costs at most one look while it is idle, every now and then.
  if (sessions_.size() >= options_.limit || now - swept_ >= options_.idle_timeout / 4) sweep(now);
  if (sessions_.size() >= options_.limit) {
    Error error{Code::resource_exhausted,
                "TOO_MANY_SESSIONS",
                "there are " + std::to_string(sessions_.size()) + " sessions, which is the limit",
                "close sessions that are no longer needed, or send the header prism-namespace instead of opening one",
                Retry::safe,
                std::chrono::seconds(1),
                {}};
    return fail(std::move(error));
  }
  sessions_.emplace(session->id, session);
  return Use(std::move(session));
}

Result<Sessions::Use> Sessions::use(std::string_view id) {
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = sessions_.find(id); found != sessions_.end() && !expired(*found->second, Clock::now())) {
      return Use(found->second);
    }
  }
  return fail(Code::unauthenticated, "SESSION_NOT_FOUND",
              "there is no such session: it expired, was closed, or the server has been restarted",
              "open another session and repeat the call", Retry::safe);
}

void Sessions::close(std::string_view id) {
  const std::unique_lock lock(mutex_);
  if (const auto found = sessions_.find(id); found != sessions_.end()) sessions_.erase(found);
}

std::size_t Sessions::count() const {
  const std::shared_lock lock(mutex_);
  return sessions_.size();
}

}  // namespace prism::api
