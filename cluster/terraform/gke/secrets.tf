# The four secrets of values-gke-l4.yaml: made here, kept in Secret Manager, never in values. They are
# in Terraform's state as well, whose bucket only administrators may read.
resource "random_password" "ray_token" {
  length  = 64
  special = false
}

resource "random_password" "jwt_key" {
  length  = 64
  special = false
}

locals {
  secrets = {
    ztom-ray-token      = random_password.ray_token.result
    ztom-jwt-key        = random_password.jwt_key.result
    ztom-redis-password = google_redis_instance.head.auth_string
    ztom-ledger = format(
      "postgresql+psycopg://%s:%s@db.ztom.internal:5432/%s?sslmode=require",
      google_sql_user.ledger.name,
      random_password.database.result,
      google_sql_database.ledger.name,
    )
  }
}

resource "google_secret_manager_secret" "main" {
  for_each  = toset(["ztom-ray-token", "ztom-jwt-key", "ztom-redis-password", "ztom-ledger"])
  secret_id = each.key
  labels    = local.labels

  replication {
    user_managed {
      replicas {
        location = var.region
        customer_managed_encryption {
          kms_key_name = google_kms_crypto_key.main["secrets"].id
        }
      }
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.users]
}

resource "google_secret_manager_secret_version" "main" {
  for_each    = google_secret_manager_secret.main
  secret      = each.value.id
  secret_data = local.secrets[each.key]
}
