#include "backends/sqlite/server_options.h"

#include <optional>
#include <string>
#include <vector>

#include "config/secret.h"

namespace prism::sqlite {
namespace {

using namespace config;

// What the four have in common.
struct Tls {
  bool enabled = true;
  std::optional<std::string> ca_file, cert_file, key_file;
};

const Schema<Tls>& tls_schema() {
  static const auto schema =
      Schema<Tls>("tls", "Encryption of the connection.")
          .field(&Tls::enabled, "enabled", Bool{}, "false: in the clear.")
          .default_("true")
          .field(&Tls::ca_file, "ca_file", Text{}, "Certificates of the authorities that are trusted, PEM.")
          .field(&Tls::cert_file, "cert_file", Text{}, "This client's certificate, PEM.")
          .field(&Tls::key_file, "key_file", Text{}, "Its private key, PEM.")
          .check({"cert_file", "key_file"}, [](const Tls& tls, const Node& map, Diagnostics& diagnostics) {
            if (tls.cert_file.has_value() == tls.key_file.has_value()) return;
            const std::string given = tls.cert_file ? "cert_file" : "key_file";
            const std::string other = tls.cert_file ? "key_file" : "cert_file";
            diagnostics.error(*map.find(given), "MISSING_OPTION",
                              "'" + given + "' is of no use without '" + other + "'", "give both, or neither");
          });
  return schema;
}

template <class T>
void check_login(const T& options, const Node& map, Diagnostics& diagnostics) {
  if (!options.login_password || options.login_user) return;
  diagnostics.error(*map.find("password"), "MISSING_OPTION", "'password' is of no use without 'user'", "give both");
}

struct Nats {
  std::vector<std::string> servers;
  std::optional<std::string> login_user;
  std::optional<Secret> login_password, token;
  std::optional<std::string> credentials_file;
  std::optional<Tls> tls;
};

const Schema<Nats>& nats_schema() {
  static const auto schema =
      Schema<Nats>("nats", "Connection to NATS.")
          .field(&Nats::servers, "servers", ListOf<Address>{.element = {.need_host = true}, .min = 1, .max = 100},
                 "Addresses of servers.")
          .example("[nats-1:4222]")
          .field(&Nats::login_user, "user", Text{}, "Name to log in with.")
          .field(&Nats::login_password, "password", SecretText{}, "Its password.")
          .field(&Nats::token, "token", SecretText{}, "Token to log in with, in place of a name.")
          .field(&Nats::credentials_file, "credentials_file", Text{}, "File with a JWT and its key.")
          .field(&Nats::tls, "tls", Nested{tls_schema()}.shorthand("enabled"), "Encryption of the connection.")
          .check({"user", "password"}, check_login<Nats>)
          .check({"user", "token", "credentials_file"},
                 [](const Nats& nats, const Node& map, Diagnostics& diagnostics) {
                   if (nats.login_user.has_value() + nats.token.has_value() + nats.credentials_file.has_value() < 2)
                     return;
                   diagnostics.error(*map.find(nats.token ? "token" : "credentials_file"), "CONTRADICTING_OPTIONS",
                                     "user, token and credentials_file each say who logs in", "keep one of them");
                 });
  return schema;
}

struct Redis {
  std::optional<std::string> address, login_user;
  std::optional<Secret> password;
  std::optional<std::uint16_t> database;
  std::optional<Tls> tls;
};

const Schema<Redis>& redis_schema() {
  static const auto schema =
      Schema<Redis>("redis", "Connection to Redis.")
          .field(&Redis::address, "address", Address{.need_host = true}, "The server.")
          .example("redis:6379")
          .field(&Redis::login_user, "user", Text{}, "Name to log in with.")
          .field(&Redis::password, "password", SecretText{}, "Its password.")
          .field(&Redis::database, "database", Int{.min = 0, .max = 15}, "Number of the database; without it 0.")
          .field(&Redis::tls, "tls", Nested{tls_schema()}.shorthand("enabled"), "Encryption of the connection.");
  return schema;
}

template <class T>
ServerOptions of(const Schema<T>& schema) {
  return {.validate = schema.validator(), .info = schema.shared_info()};
}

}  // namespace

ServerOptions server_options(std::string_view type) {
  if (type == "nats") return of(nats_schema());
  if (type == "redis") return of(redis_schema());
  return {};
}

}  // namespace prism::sqlite
